"""What commands show on a terminal: the text of data stands in it, and neither `rich` nor the terminal obeys it."""

from collections.abc import Iterable
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from fit_jax.foreign import printable


class PipedConsole(Console):
    """A console whose reader may go (`| head`) without a failure being reported."""

    def on_broken_pipe(self) -> NoReturn:
        """Leaves the error to the frame of all commands; `rich` itself would end with status 1."""
        raise


class Terminal(PipedConsole):
    """A console that takes every text for text: no markup, no emoji codes, control characters written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As `rich`'s own, of which only what the text says is changed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
