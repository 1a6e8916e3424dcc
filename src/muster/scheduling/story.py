"""What happened to an application, and which event caused it."""

from __future__ import annotations

import msgspec

from muster.scheduling.events import NodeGone, NodeSeen, PodGone, PodSeen
from muster.scheduling.model import Pod


class StoryEntry(msgspec.Struct, frozen=True):
    at: float
    """Seconds."""
    cause: str
    """The event or question that was being handled, e.g. ``PodGone team-a/etl-driver``."""
    what: str
    """What the scheduler did about it, in words for people."""


def cause_of(handled: object) -> str:
    """An event, or a pod whose admission was asked about, in a few words."""
    match handled:
        case Pod(namespace=namespace, name=name):
            return f"admission of {namespace}/{name}"
        case PodSeen(pod=pod) | PodGone(pod=pod):
            return f"{type(handled).__name__} {pod.namespace}/{pod.name}"
        case NodeSeen(node=node):
            return f"NodeSeen {node.name}"
        case NodeGone(name=name):
            return f"NodeGone {name}"
        case _:
            return type(handled).__name__
