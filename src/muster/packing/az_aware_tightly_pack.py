"""``az-aware-tightly-pack``: inside one zone when it fits there, else over all of them."""

from __future__ import annotations

from muster.packing.model import Gang, Packing
from muster.packing.single_az_tightly_pack import single_az_tightly_pack
from muster.packing.tightly_pack import tightly_pack


def az_aware_tightly_pack(gang: Gang) -> Packing | None:
    return single_az_tightly_pack(gang) or tightly_pack(gang)
