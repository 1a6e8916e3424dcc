"""Where the demo is shown while it runs: a live picture on a terminal, else a line now and then. Always on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from muster.cli.demo.measure import Measurement
from muster.cli.demo.view import Picture, draw, line

_LINE_EVERY_S = 5.0


class Screen(Protocol):
    def note(self, text: str) -> None:
        """Something that happened once."""

    def show(self, measured: Measurement, picture: Picture) -> None:
        """How it stands; called a few times a second."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """Plain lines for logs and pipes."""

    def __init__(self) -> None:
        self._last = -_LINE_EVERY_S

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, measured: Measurement, picture: Picture) -> None:
        if picture.elapsed - self._last >= _LINE_EVERY_S:
            self._last = picture.elapsed
            print(line(measured, picture), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Terminal:
    """The live view."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def note(self, text: str) -> None:
        self._live.console.print(text, highlight=False)

    def show(self, measured: Measurement, picture: Picture) -> None:
        self._live.update(draw(measured, picture), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def open_screen() -> Screen:
    console = Console(stderr=True)
    return Terminal(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
