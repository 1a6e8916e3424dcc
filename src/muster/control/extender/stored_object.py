"""One object of the write-back store: what is wanted of it against what the API server is known to have. Pure.

Every news and every answer is a transition here; nothing is sent from here. The rules are ``write_back``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from muster.control.extender.object_states import as_state_of, is_newer, metadata_of, spec_of
from muster.kube.objects import KubeStruct

T = TypeVar("T", bound=KubeStruct)


@dataclass
class StoredObject(Generic[T]):
    """``wanted`` against ``server``. ``changed`` is told of what others made of it; ``None``: they removed it."""

    changed: Callable[[T | None], None]
    wanted: T | None = None
    server: T | None = None
    """Newest state known of the API server."""
    base: str = ""
    """uid of the object that ``wanted`` is a state of; "" while that is yet to be created."""
    creation: int = 0
    """Raised by each create and delete here: tells an answer for this object from one for its predecessor."""
    revision: int = 0
    written: int = 0
    """``wanted`` has changes that the API server lacks while this is less than ``revision``."""
    doomed: dict[str, None] = field(default_factory=dict)
    """uids deleted here and still to be deleted there, oldest first."""
    gone: dict[str, int] = field(default_factory=dict)
    """uids that are deleted there: whatever is still told of them is old. With the count of lists by then."""
    ended: set[str] = field(default_factory=set)
    """Those whose end the watch has told while a write was under way: nothing more will come."""
    creating: T | None = None
    """The create that is under way."""
    unanswered: list[tuple[float, T]] = field(default_factory=list)
    """Creates whose answers were lost, and until when they may come true, wanted or not."""

    @property
    def lacks_update(self) -> bool:
        """Whether the API server lacks changes of ``wanted``."""
        return self.wanted is not None and self.written < self.revision

    @property
    def due(self) -> bool:
        """Whether there is something to write."""
        return bool(self.doomed) or self.lacks_update

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing is left to know."""
        return self.wanted is None and not self.gone and not self.unanswered and not self.due

    # Changes from here

    def create(self, value: T) -> None:
        self.wanted, self.base = value, ""
        self.creation += 1
        self.revision += 1

    def update(self, value: T) -> None:
        assert self.wanted is not None
        self.wanted = as_state_of(value, metadata_of(self.wanted))
        self.revision += 1

    def delete(self) -> None:
        uid = self.base or (metadata_of(self.server).uid if self.server is not None else "")
        if uid and uid not in self.gone:
            self.doomed[uid] = None
        self.creation += 1
        self.wanted, self.base, self.written = None, "", self.revision

    # News from the API server

    def take(self, value: T, now: float) -> None:
        """A state of the API server that we did not write, or not knowingly. ``now``: seconds of any clock."""
        if not self.stays(value):
            return
        if self.wanted is None and self._is_late_create(value, now):
            self.doomed[metadata_of(value).uid] = None
        elif self._learn(value):
            self._follow(value)

    def remove(self, uid: str, lists: int, *, is_writing: bool) -> None:
        """The watch has told of its end. ``is_writing``: an answer about it may be under way."""
        self.doomed.pop(uid, None)
        if is_writing:
            self.gone[uid] = lists
            self.ended.add(uid)
        else:
            self.gone.pop(uid, None)
        self.forget_state(uid)
        if self.wanted is not None and self.base == uid:
            self.lose()

    def lose(self) -> None:
        """The object is gone by another's hand, and what was pending for it with it."""
        self.wanted, self.base, self.written = None, "", self.revision
        self.changed(None)
        if self.server is not None and self.stays(self.server):
            self._follow(self.server)  # somebody made another of its name

    def forget_state(self, uid: str) -> None:
        """Of an object that is gone."""
        if self.server is not None and metadata_of(self.server).uid == uid:
            self.server = None

    def stays(self, value: T) -> bool:
        """Whether this object is not one that was deleted here, or is known to be gone."""
        uid = metadata_of(value).uid
        return uid not in self.gone and uid not in self.doomed

    def adopt(self) -> None:
        """An object under the name that is yet to be created, and which stays: it becomes ours."""
        there = self.server
        if self.wanted is not None and not self.base and there is not None and self.stays(there):
            metadata = metadata_of(there)
            if metadata.deletion_timestamp is None:
                self.base = metadata.uid

    def answered(self, answer: T, revision: int) -> None:
        """The API server has everything up to ``revision``."""
        self._learn(answer)
        self.written = max(self.written, revision)
        assert self.server is not None
        self._follow(self.server)

    def _follow(self, value: T) -> None:
        """Memory after news of the object under this name. ``value`` is ``server``.

        Content that is equal stays the very same objects: it is kept once, and readers see that it has not changed.
        """
        uid = metadata_of(value).uid
        before = self.wanted
        if before is not None and self.lacks_update and self.base in ("", uid):
            self.wanted = as_state_of(before, metadata_of(value))
            return
        self.base, self.written = uid, self.revision
        if before is not None and msgspec.structs.replace(value, metadata=metadata_of(before)) == before:
            self.wanted = self.server = msgspec.structs.replace(before, metadata=metadata_of(value))
            return
        self.wanted = value
        self.changed(value)

    def _learn(self, value: T) -> bool:
        """Remember the API server's state, unless a newer one is known."""
        if self.server is not None:
            known, told = metadata_of(self.server).resource_version, metadata_of(value).resource_version
            if not is_newer(told, known):
                return False
        self.server = value
        return True

    def _is_late_create(self, value: T, now: float) -> bool:
        """Whether this is what we tried to create, got no answer for, and no longer want."""
        attempts = [self.creating, *(attempt for until, attempt in self.unanswered if now <= until)]
        owners, spec = metadata_of(value).owner_references, spec_of(value)
        return any(
            attempt is not None and metadata_of(attempt).owner_references == owners and spec_of(attempt) == spec
            for attempt in attempts
        )
