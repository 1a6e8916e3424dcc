"""Where an application stands, in one sentence: the first of every answer, and all that conditions and events say."""

from __future__ import annotations

from muster.scheduling.model import Phase
from muster.scheduling.records import Gang

ENDED = "It has ended; everything it held is free."


def sentence_of(gang: Gang) -> str:
    """While it waits, the message of its status as a sentence: stable as long as the reason is the same."""
    match gang.phase:
        case Phase.INVALID:
            return f"Its driver runs without a gang, because its sizes could not be had: {gang.message}."
        case Phase.FINISHED:
            return ENDED
        case Phase.RESERVED | Phase.RUNNING:
            return _started(gang)
    if gang.application is None:
        return "Its driver is held until its sizes are known: neither annotations nor its ConfigMap have told them yet."
    if gang.driver is None and not gang.client:
        return "Its sizes are known, but its driver pod has not been seen yet."
    if not gang.message:
        return "It waits for its turn."
    return as_sentence(gang.message)


def as_sentence(message: str) -> str:
    """The message of a status, as people begin and end what they say."""
    if message.startswith("can never "):
        return f"It {message}."
    return f"{message[0].upper()}{message[1:]}."


def _started(gang: Gang) -> str:
    placed = sum(gang.placed.values())
    begun = "Its driver and minimum are reserved" if gang.phase is Phase.RESERVED else "It runs"
    parts = [f"{begun}: {placed} executor(s) placed, {gang.unfilled} of {gang.minimum} reserved slot(s) unfilled"]
    if gang.owed:
        parts.append(f"{gang.owed} lost slot(s) have no room now and come before the queue")
    if gang.held:
        parts.append(f"{len(gang.held)} executor(s) above that are held until there is room")
    return "; ".join(parts) + "."
