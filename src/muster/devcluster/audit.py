"""Counts of requests by who, verb and resource: how many API writes a pod costs is read from here."""

from __future__ import annotations

from collections import Counter

import msgspec


class Entry(msgspec.Struct, frozen=True, order=True):
    """``resource`` is group-qualified with its subresource: ``pods/status``; ``agent`` is the User-Agent header."""

    user: str
    agent: str
    verb: str
    resource: str
    code: int


class Audit:
    def __init__(self) -> None:
        self._counts: Counter[Entry] = Counter()

    def record(self, entry: Entry) -> None:
        self._counts[entry] += 1

    def count(
        self,
        *,
        verb: str | None = None,
        resource: str | None = None,
        user: str | None = None,
        agent: str | None = None,
        succeeded: bool | None = True,
    ) -> int:
        """Requests that fit; ``agent`` is a prefix; ``succeeded`` None counts failures too."""
        return sum(
            count
            for entry, count in self._counts.items()
            if (verb is None or entry.verb == verb)
            and (resource is None or entry.resource == resource)
            and (user is None or entry.user == user)
            and (agent is None or entry.agent.startswith(agent))
            and (succeeded is None or (entry.code < 400) is succeeded)
        )

    def rows(self) -> list[dict[str, str | int]]:
        """All counters as JSON-ready rows, sorted."""
        return [msgspec.structs.asdict(entry) | {"count": count} for entry, count in sorted(self._counts.items())]

    def clear(self) -> None:
        self._counts.clear()
