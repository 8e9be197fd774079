"""Test a checkpoint."""

import sys
from pathlib import Path

import hydra
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as the template's rootutils does


@hydra.main(version_base="1.3", config_path="../configs", config_name="eval.yaml")
def main(cfg):
    trainer = instantiate(cfg.trainer, logger=[])
    trainer.test(instantiate(cfg.model), datamodule=instantiate(cfg.data), ckpt_path=cfg.ckpt_path)


if __name__ == "__main__":
    main()
