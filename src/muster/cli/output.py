"""What the commands share on the way out: kubectl's tables and durations, JSON, YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns three spaces apart, as kubectl prints them; the last one is not padded."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: object) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")


def as_list(kind: str, api_version: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """A Kubernetes list object, which kubectl can read back."""
    return {"apiVersion": api_version, "kind": f"{kind}List", "items": items}


def duration(seconds: float) -> str:
    """A span as kubectl's AGE column shows it: ``42s``, ``3m20s``, ``2h5m``, ``3d4h`` (apimachinery HumanDuration)."""
    whole = int(seconds)
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8 and hours % 24:
        return f"{days}d{hours % 24}h"
    return f"{days}d"
