"""A log of what a scheduler was told and what it answered, one JSON object a line; and playing such a log again.

Kinds of line, told apart by ``type``: the events, ``Asked`` (an executor's placement was asked for), ``Offer`` (a
choice among offered nodes was asked for), and the answers: the decisions, ``Answered`` and ``Chosen``. Answers follow
what they answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from muster.scheduling.decisions import Decision
from muster.scheduling.events import Event
from muster.scheduling.model import Choice, Placement, Pod
from muster.scheduling.scheduler import Scheduler


class Asked(msgspec.Struct, frozen=True, tag=True):
    """``place_executor`` was called."""

    at: float
    pod: Pod


class Answered(msgspec.Struct, frozen=True, tag=True):
    placement: Placement


class Offer(msgspec.Struct, frozen=True, tag=True):
    """``choose`` was called."""

    at: float
    pod: Pod
    nodes: tuple[str, ...]


class Chosen(msgspec.Struct, frozen=True, tag=True):
    choice: Choice


Input = Event | Asked | Offer
Output = Decision | Answered | Chosen

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Input | Output).decode


class LogError(ValueError):
    """A line is none of a recording; the message names it."""


def encode(entry: Input | Output) -> bytes:
    """One line, without its end."""
    return _encode(entry)


def decode(lines: Iterable[bytes]) -> Iterator[Input | Output]:
    """The entries of a recording. Raises ``LogError``."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _decode(line)
            except msgspec.MsgspecError as error:
                raise LogError(f"line {number} is no entry of a recording: {error}") from None


def replay(scheduler: Scheduler, inputs: Iterable[Input]) -> Iterator[Output]:
    """Tell a scheduler everything again; yields what it answers now."""
    for entry in inputs:
        if isinstance(entry, Asked):
            yield Answered(scheduler.place_executor(entry.pod, entry.at))
        elif isinstance(entry, Offer):
            choice, decisions = scheduler.choose(entry.pod, entry.nodes, entry.at)
            yield Chosen(choice)
            yield from decisions
        else:
            yield from scheduler.handle(entry)
