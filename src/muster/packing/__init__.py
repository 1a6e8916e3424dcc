"""Where a gang goes: one plain function per packer, one file per packer.

In: free and schedulable amounts per node, the driver's and the executor's request, how many, the node orders.
Out: the driver's node and a count of executors per node, or nothing.
Never: state, queues, Kubernetes objects, or a loop over executors.
"""

from muster.packing.model import NO_DRIVER, Gang, Pack, Packing, UnknownPackerError
from muster.packing.registry import PACKERS, Packer, find_packer

__all__ = ["NO_DRIVER", "PACKERS", "Gang", "Pack", "Packer", "Packing", "UnknownPackerError", "find_packer"]
