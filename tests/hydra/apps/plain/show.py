"""Prints the config of the job's optimizer as JSON, without training."""

import json

import hydra
from omegaconf import OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print(json.dumps(OmegaConf.to_container(cfg.optimizer, resolve=True)))


if __name__ == "__main__":
    main()
