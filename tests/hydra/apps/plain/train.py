"""Trains, tests from a checkpoint, and prints the param groups and the names of the test metrics as JSON."""

import json

import hydra
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from net import data
from torch.utils.data import DataLoader


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    model = hydra.utils.instantiate(cfg.model)
    checkpoint = ModelCheckpoint(dirpath=".", filename="model")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data(), batch_size=4))
    keys = ("name", "lr", "weight_decay", "param_names")
    groups = [{key: group[key] for key in keys} for group in trainer.optimizers[0].param_groups]
    (tested,) = trainer.test(model, DataLoader(data(), batch_size=4), ckpt_path=checkpoint.best_model_path)
    print(json.dumps({"groups": groups, "tested": sorted(tested)}))


if __name__ == "__main__":
    main()
