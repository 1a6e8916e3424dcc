"""What deciding needs of a write-back store, so that it can be tried without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

Announce = Callable[[str, dict[str, object]], None]
"""Tell a structured event: its name, its fields."""


class Store(Protocol[T]):
    """Objects of one resource as they should be; written in the background (``write_back.WriteBack``)."""

    def get(self, namespace: str, name: str) -> T | None: ...
    def create(self, value: T) -> None: ...
    def update(self, value: T) -> None: ...
    def delete(self, namespace: str, name: str) -> bool: ...
    def __iter__(self) -> Iterator[T]: ...
