"""State that the children of a composite keep under keys that are no parameter: each child has its own.

facebookresearch's MADGRAD counts in `optimizer.state["k"]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

# Their classes keep state for parameters only.
_WITHOUT_OWN_KEYS = ("torch.optim", "lightning_optim.optim")


class ChildState:
    """Where a composite's state holds what each child keeps under keys that are no parameter.

    Under the same key if only one child may have any; else under `<algorithm>.<key>`, so that two children may use one
    key.

    Args:
        children: by algorithm.
    """

    def __init__(self, children: Mapping[str, Optimizer]) -> None:
        names = [name for name, child in children.items() if not type(child).__module__.startswith(_WITHOUT_OWN_KEYS)]
        self._prefixes = {name: f"{name}." if len(names) > 1 else "" for name in names}

    def keys_of(self, name: str, keys: Iterable[Any]) -> dict[Any, Any]:
        """Which of these keys of the composite's state are one child's: by the key that the child uses."""
        if (prefix := self._prefixes.get(name)) is None:
            return {}
        if not prefix:
            return {key: key for key in keys}
        return {key[len(prefix) :]: key for key in keys if isinstance(key, str) and key.startswith(prefix)}

    def key_in_composite(self, name: str, key: Any) -> Any:
        """The key in the composite's state of what a child has under `key`."""
        prefix = self._prefixes.get(name)
        return f"{prefix}{key}" if prefix else key

    @contextmanager
    def lent_to(self, name: str, state: MutableMapping[Any, Any]) -> Iterator[None]:
        """Let a child find its own keys in the composite's state while it steps, and no others."""
        if not self._prefixes.get(name):
            yield
            return
        others = {key: state.pop(key) for key in find_other_keys(state)}
        state.update({key: others.pop(held) for key, held in self.keys_of(name, list(others)).items()})
        try:
            yield
        finally:
            own = {key: state.pop(key) for key in find_other_keys(state)}
            state.update({**others, **{self.key_in_composite(name, key): value for key, value in own.items()}})


def find_other_keys(state: Mapping[Any, Any]) -> list[Any]:
    """The keys of an optimizer's state that are no parameter."""
    return [key for key in state if not isinstance(key, Tensor)]


def find_other_saved_keys(state_dict: Mapping[str, Any]) -> list[Any]:
    """The keys in the state of a state dict that stand for no parameter."""
    params = {param for group in state_dict["param_groups"] for param in group["params"]}
    return [key for key in state_dict["state"] if key not in params and not isinstance(key, int)]
