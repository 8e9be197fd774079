"""What callbacks do to one module's `configure_optimizers`: replace it, or be called just before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class ConfigureOptimizersHook:
    """Stands in for `configure_optimizers` on one instance, whichever callback came first, until it is undone."""

    def __init__(self, module: LightningModule) -> None:
        self._own = vars(module).get("configure_optimizers")
        self._configure: Callable[[], Any] = module.configure_optimizers
        self._before: list[Callable[[], None]] = []

    @classmethod
    def of(cls, module: LightningModule) -> ConfigureOptimizersHook:
        """The one in force on this module, or a new one."""
        bound = vars(module).get("configure_optimizers")
        current = getattr(bound, "__self__", None)
        if isinstance(current, cls):
            return current
        arrangement = cls(module)
        # A bound method, since Lightning compares its __code__ to tell whether the hook is overridden.
        module.configure_optimizers = arrangement.configure_optimizers  # type: ignore[method-assign]
        return arrangement

    def replace(self, configure: Callable[[], Any]) -> None:
        """Call this instead of the module's own."""
        self._configure = configure

    def before(self, hook: Callable[[], None]) -> None:
        """Call this first."""
        self._before.append(hook)

    def configure_optimizers(self) -> Any:
        """What Lightning calls."""
        for hook in self._before:
            hook()
        return self._configure()

    @staticmethod
    def undo(module: LightningModule) -> None:
        """Give the module its own hook back; harmless where there is nothing to undo."""
        bound = vars(module).get("configure_optimizers")
        arrangement = getattr(bound, "__self__", None)
        if isinstance(arrangement, ConfigureOptimizersHook):
            del module.configure_optimizers
            if arrangement._own is not None:
                module.configure_optimizers = arrangement._own  # type: ignore[method-assign]
