"""An OptimizerMonitor whose every hook, Lightning's and torch's, runs in a place of a test's own."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_optim import OptimizerMonitor


class Watched(OptimizerMonitor):
    """Runs each hook of a training step in `around`."""

    def around(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for watcher in self._watchers:
            optimizer = watcher.optimizer
            for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks):
                for key, hook in list(hooks.items()):
                    hooks[key] = lambda *args, hook=hook: self.around(hook, *args)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.around(super().on_train_batch_start, *args, **kwargs)

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.around(super().on_before_optimizer_step, *args)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.around(super().on_train_batch_end, *args, **kwargs)
