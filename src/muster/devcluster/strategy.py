"""What a kind does beyond the life that every object has. Source: apiserver ``pkg/registry/rest`` (strategies)."""

from __future__ import annotations

from muster.devcluster.errors import Cause
from muster.devcluster.kinds import Kind
from muster.devcluster.schema import shape_of
from muster.devcluster.storage import Object


class Strategy:
    """The generic strategy; kinds with more to say override parts of it. Objects are the caller's own copies."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.has_status = "status" in kind.subresources
        self.shape = shape_of(kind.kind)

    unconditional_update = True
    """Whether PUT without a resource version is allowed."""
    create_on_update = False
    """Whether PUT of an object that does not exist creates it."""

    def default(self, obj: Object) -> None:
        """Sets what the API's defaulting sets, in place; runs on every write, before and after webhooks."""

    def prepare_create(self, obj: Object) -> None:
        if self.has_status:
            obj.pop("status", None)
        if self.kind.generation:
            obj["metadata"]["generation"] = 1

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        """Undoes what this endpoint may not change, and counts the generation."""
        if subresource == "status":
            for key in set(new) | set(old):
                if key not in ("status", "metadata"):
                    _restore(new, old, key)
            return
        if self.has_status:
            _restore(new, old, "status")
        if self.kind.generation and self._content(new) != self._content(old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def validate_create(self, obj: Object) -> list[Cause]:
        return []

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        return []

    def unknown_fields(self, obj: Object) -> list[str]:
        """Paths of fields that the schema of a custom kind does not know."""
        return []

    def grace(self, obj: Object, asked: int | None) -> int:
        """Seconds between the deletion mark and the end of the object; only pods have any."""
        return 0

    @staticmethod
    def _content(obj: Object) -> Object:
        return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _restore(new: Object, old: Object, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)
