"""Events have two faces on one storage: core ``v1`` (kept) and ``events.k8s.io/v1``. Source: ``pkg/apis/events/v1``."""

from __future__ import annotations

from muster.devcluster.storage import Object

_PAIRS = (
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
)
_TO_CORE = dict(_PAIRS)
_FROM_CORE = {core: new for new, core in _PAIRS}


def to_core(event: Object) -> Object:
    renamed = {_TO_CORE.get(key, key): value for key, value in event.items()}
    return renamed | {"kind": "Event", "apiVersion": "v1"}


def from_core(event: Object) -> Object:
    renamed = {_FROM_CORE.get(key, key): value for key, value in event.items()}
    return renamed | {"kind": "Event", "apiVersion": "events.k8s.io/v1"}
