"""Train, then test the best checkpoint."""

import sys
from pathlib import Path

import hydra
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as the template's rootutils does


@hydra.main(version_base="1.3", config_path="../configs", config_name="train.yaml")
def main(cfg):
    data, model = instantiate(cfg.data), instantiate(cfg.model)
    callbacks, loggers = (
        [instantiate(node) for node in (cfg.get(key) or {}).values() if node and "_target_" in node]
        for key in ("callbacks", "logger")
    )
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers)
    trainer.fit(model, datamodule=data, ckpt_path=cfg.get("ckpt_path"))
    trainer.test(model, datamodule=data, ckpt_path=trainer.checkpoint_callback.best_model_path)


if __name__ == "__main__":
    main()
