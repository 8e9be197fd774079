"""`PrintableOutput`: no control character from a file, a config or a model reaches the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from ..core.printable import to_printable


class PrintableOutput(RenderHook):
    """Replaces what a terminal would obey in everything that a console prints, except for the colors of rich itself.

    Examples:
        >>> console = Console(width=40)
        >>> console.push_render_hook(PrintableOutput())
        >>> console.print("head\\x1b[2J")
        head�[2J
    """

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What the console prints in place of what it was given."""
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        return map(_clean, console.render(self._renderable, options))


def _clean(segment: Segment) -> Segment:
    if segment.control:
        return segment
    lines = (to_printable(line) for line in segment.text.split("\n"))
    return Segment("\n".join(lines), segment.style)
