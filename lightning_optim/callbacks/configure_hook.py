"""Replace a module's `configure_optimizers`, or run callbacks around it, when a strategy sets up the optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import Strategy


class ConfigureOptimizersHook:
    """Wraps a strategy's `setup_optimizers` for a fit; several callbacks may share it, in any order.

    The module itself is changed only during that call: so copies made during the fit, and the pickles that are sent to
    workers of a data loader, are those of the module as its author wrote it.

    Use `install` to get it and `remove` to undo it.
    """

    def __init__(self, strategy: Strategy, module: LightningModule) -> None:
        self._setup_optimizers = strategy.setup_optimizers
        self._module = module
        self._configure: Callable[[], Any] = module.configure_optimizers
        self._run_before: list[Callable[[], None]] = []
        self._run_after: list[Callable[[Any], None]] = []

    @classmethod
    def install(cls, trainer: Trainer, module: LightningModule) -> ConfigureOptimizersHook:
        """The hook of this trainer's strategy: the installed one, else a new one."""
        installed = _find_installed(trainer.strategy)
        if installed is not None:
            return installed
        hook = cls(trainer.strategy, module)
        trainer.strategy.setup_optimizers = hook.setup_optimizers  # type: ignore[method-assign]
        return hook

    @staticmethod
    def remove(trainer: Trainer) -> None:
        """Restore the strategy's own method; does nothing if no hook is installed."""
        if _find_installed(trainer.strategy) is not None:
            del trainer.strategy.setup_optimizers

    def replace(self, configure: Callable[[], Any]) -> None:
        """Call `configure` instead of the module's own `configure_optimizers`."""
        self._configure = configure

    def run_before(self, callback: Callable[[], None]) -> None:
        """Call `callback` before `configure_optimizers`."""
        self._run_before.append(callback)

    def run_after(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with what `configure_optimizers` has returned."""
        self._run_after.append(callback)

    def setup_optimizers(self, trainer: Trainer) -> None:
        """What the strategy calls."""
        # LightningCLI sets this attribute on the instance.
        own = vars(self._module).get("configure_optimizers")
        self._module.configure_optimizers = self.configure_optimizers  # type: ignore[method-assign]
        try:
            self._setup_optimizers(trainer)
        finally:
            del self._module.configure_optimizers
            if own is not None:
                self._module.configure_optimizers = own  # type: ignore[method-assign]

    def configure_optimizers(self) -> Any:
        """What Lightning calls in place of the module's own."""
        for callback in self._run_before:
            callback()
        configured = self._configure()
        for check in self._run_after:
            check(configured)
        return configured


def _find_installed(strategy: Strategy) -> ConfigureOptimizersHook | None:
    hook = getattr(vars(strategy).get("setup_optimizers"), "__self__", None)
    return hook if isinstance(hook, ConfigureOptimizersHook) else None
