"""Replace a module's `configure_optimizers`, or run callbacks before it, for the duration of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class ConfigureOptimizersHook:
    """Takes the place of `configure_optimizers` on one module instance; several callbacks may share it, in any order.

    Use `install` to get it and `remove` to undo it.
    """

    def __init__(self, module: LightningModule) -> None:
        self.original: Callable[[], Any] | None = vars(module).get("configure_optimizers")
        """The instance attribute that it replaces, if there was one."""
        self._configure: Callable[[], Any] = module.configure_optimizers
        self._run_before: list[Callable[[], None]] = []

    @classmethod
    def install(cls, module: LightningModule) -> ConfigureOptimizersHook:
        """The hook of this module: the installed one, else a new one."""
        installed = _find_installed(module)
        if installed is not None:
            return installed
        hook = cls(module)
        # A bound method: Lightning compares its __code__ to find out whether `configure_optimizers` is overridden.
        module.configure_optimizers = hook.configure_optimizers  # type: ignore[method-assign]
        return hook

    @staticmethod
    def remove(module: LightningModule) -> None:
        """Restore the module's own `configure_optimizers`; does nothing if no hook is installed."""
        hook = _find_installed(module)
        if hook is not None:
            del module.configure_optimizers
            if hook.original is not None:
                module.configure_optimizers = hook.original  # type: ignore[method-assign]

    def replace(self, configure: Callable[[], Any]) -> None:
        """Call `configure` instead of the module's own `configure_optimizers`."""
        self._configure = configure

    def run_before(self, callback: Callable[[], None]) -> None:
        """Call `callback` before `configure_optimizers`."""
        self._run_before.append(callback)

    def configure_optimizers(self) -> Any:
        """What Lightning calls."""
        for callback in self._run_before:
            callback()
        return self._configure()


def _find_installed(module: LightningModule) -> ConfigureOptimizersHook | None:
    bound = vars(module).get("configure_optimizers")
    hook = getattr(bound, "__self__", None)
    return hook if isinstance(hook, ConfigureOptimizersHook) else None
