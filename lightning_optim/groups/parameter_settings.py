"""`ParameterSettings`: the settings of one parameter and the rules that set them, for `explain --why`."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.column_widths import Column
from ..core.number_format import format_value
from ..core.text_table import TextTable
from ..schedule.override import format_override
from .group import Group
from .rules import SCALES

_COLUMNS = (Column("field", "exact"), Column("value", "text"), Column("set by", "text"))


@dataclass(frozen=True)
class ParameterSettings:
    """The fields of one parameter, each with its value and the config keys that set it; prints as a table."""

    parameter: str
    """Its clean name."""
    group: Group | None
    """Its group; None where a rule froze it."""
    frozen_by: tuple[str, ...] = ()
    """What froze it: config keys, or the model."""
    thaws: str | None = None
    """When its stage thaws."""

    def rows(self) -> list[tuple[str, str, str]]:
        """`(field, value, keys)`: the keys that set the value, then those that scale it.

        Where there are stages, `lr` is the peak after the thaw: times the `lr_scale` of the stage.
        """
        if self.group is None:
            reasons = ", ".join(self.frozen_by) or "requires_grad=False, and no stage selects it"
            return [("frozen", "true", reasons)]
        group = self.group
        rows = self._stage_rows(group) if group.stage is not None else []
        rows += [("layer", layer.label, f"groups.{rule}.layers") for rule, layer in group.layers.items()]
        rows.append(("optimizer", group.algorithm, _format_keys(group.sources.get("optimizer", ()), "name")))
        values = dict(group.hyperparameters)
        if group.stage is not None and "lr" in values:
            values["lr"] *= group.lr_scale
        rows += [
            (name, format_value(value), _format_keys(group.sources.get(name, ()), f"the default of {group.algorithm}"))
            for name, value in values.items()
        ]
        if group.schedule is not None:
            keys = _format_keys(group.sources.get("schedule", ()), "")
            rows.append(("schedule", format_override(group.schedule), keys))
        return rows

    def _stage_rows(self, group: Group) -> list[tuple[str, str, str]]:
        values = {"stage": group.stage, "thaws": self.thaws, "lr_scale": group.lr_scale}
        if group.warmup_steps:
            values["warmup_steps"] = group.warmup_steps
        return [
            (name, format_value(value), " × ".join(group.sources.get(name, ())) or "the default")
            for name, value in values.items()
        ]

    def __rich__(self) -> TextTable:
        where = f"in the group {self.group.name}" if self.group else "frozen: in no group"
        return TextTable(title=f"{self.parameter}: {where}", columns=_COLUMNS, rows=tuple(self.rows()))

    def __str__(self) -> str:
        return self.__rich__().render()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.__rich__().html()


def _format_keys(keys: tuple[str, ...], default: str) -> str:
    """The keys as `groups.hidden.lr × groups.depth.layer_decay ** 3`; `default` where no key sets the value."""
    setters = [key for key in keys if not _is_scale(key)]
    return " × ".join([*(setters or [default]), *(key for key in keys if _is_scale(key))])


def _is_scale(key: str) -> bool:
    return key.partition(" ")[0].rpartition(".")[2] in SCALES
