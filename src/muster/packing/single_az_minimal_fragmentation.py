"""``single-az-minimal-fragmentation``: minimal fragmentation inside one zone."""

from __future__ import annotations

from muster.packing.frame import pack_in_best_zone
from muster.packing.minimal_fragmentation import fill_smallest_gaps
from muster.packing.model import Gang, Packing


def single_az_minimal_fragmentation(gang: Gang) -> Packing | None:
    return pack_in_best_zone(gang, fill_smallest_gaps, charge_executors=False)
