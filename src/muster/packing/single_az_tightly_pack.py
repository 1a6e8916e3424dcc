"""``single-az-tightly-pack``: tightly-pack inside one zone, the one whose nodes it uses best."""

from __future__ import annotations

from muster.packing.frame import pack_in_best_zone
from muster.packing.model import Gang, Packing
from muster.packing.tightly_pack import fill_in_order


def single_az_tightly_pack(gang: Gang) -> Packing | None:
    return pack_in_best_zone(gang, fill_in_order, charge_executors=True)
