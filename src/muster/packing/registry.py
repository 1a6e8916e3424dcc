"""The packers by the names they have in configuration."""

from __future__ import annotations

import msgspec

from muster.packing.az_aware_tightly_pack import az_aware_tightly_pack
from muster.packing.distribute_evenly import distribute_evenly
from muster.packing.minimal_fragmentation import minimal_fragmentation, most_fitting
from muster.packing.model import Bools, Int64s, Pack, UnknownPackerError
from muster.packing.single_az_minimal_fragmentation import single_az_minimal_fragmentation
from muster.packing.single_az_tightly_pack import single_az_tightly_pack
from muster.packing.tightly_pack import tightly_pack


class Packer(msgspec.Struct, frozen=True):
    """A packer and what else of the scheduler depends on its choice."""

    name: str
    pack: Pack
    single_zone: bool = False
    """The gang never spans zones; executors above the minimum should not either."""
    minimal_fragmentation: bool = False
    """Prefer nodes the application already uses, then small gaps; efficiencies leave executors out."""

    def one_more(self, capacity: Int64s, order: Int64s, used: Bools) -> int | None:
        """The row for one executor above the minimum, or ``None``.

        ``capacity`` and ``used`` (the application's executors are there already) are [N]; ``order`` lists the rows
        allowed. Source: palantir/k8s-spark-scheduler ``findNodeForExecutor`` in ``internal/extender/resource.go``.
        """
        room = capacity.take(order)
        if self.minimal_fragmentation:
            position = most_fitting(room, used.take(order))
            return None if position is None else int(order[position])
        if not len(order):
            return None
        position = int((room > 0).argmax())
        return int(order[position]) if room[position] > 0 else None


PACKERS = {
    packer.name: packer
    for packer in (
        Packer("tightly-pack", tightly_pack),
        Packer("distribute-evenly", distribute_evenly),
        Packer("az-aware-tightly-pack", az_aware_tightly_pack),
        Packer("single-az-tightly-pack", single_az_tightly_pack, single_zone=True),
        Packer("minimal-fragmentation", minimal_fragmentation, minimal_fragmentation=True),
        Packer(
            "single-az-minimal-fragmentation",
            single_az_minimal_fragmentation,
            single_zone=True,
            minimal_fragmentation=True,
        ),
    )
}


def find_packer(name: str) -> Packer:
    """The packer of this name.

    Raises:
        UnknownPackerError: there is none; the error lists those there are.
    """
    try:
        return PACKERS[name]
    except KeyError:
        raise UnknownPackerError(name, tuple(sorted(PACKERS))) from None
