"""``Demand`` (``scaler.palantir.com``): what an application lacks, for an autoscaler to read.

Go of the archived scheduler: ``pkg/apis/scaler`` of its library, ``internal/extender/demand.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

from muster.cluster.resources import GPU
from muster.control.extender.object_states import ours_on_top
from muster.control.extender.pods import Application
from muster.control.extender.reservations import owned_by
from muster.kube.kinds import Resource
from muster.kube.objects import KubeStruct, ObjectMeta, Pod
from muster.spark import names

GROUP = "scaler.palantir.com"
V1ALPHA1 = f"{GROUP}/v1alpha1"
V1ALPHA2 = f"{GROUP}/v1alpha2"
KIND = "Demand"


class DemandPhase(StrEnum):
    NEW = ""
    PENDING = "pending"
    """The autoscaler has seen it."""
    FULFILLED = "fulfilled"
    """Capacity was added, and should be usable."""
    CANNOT_FULFILL = "cannot-fulfill"
    """A unit is larger than any machine of the group, or the group is at its maximum."""


class _KebabStruct(msgspec.Struct, frozen=True, gc=False, rename="kebab"):
    """Field names in kebab-case on the wire; what Go leaves out when empty is ``UNSET`` here."""


class DemandUnit(_KebabStruct, frozen=True):
    """``count`` pods of one size."""

    resources: dict[str, str] = {}
    count: int = 0
    pod_names_by_namespace: dict[str, list[str]] | UnsetType | None = UNSET
    """Pods that will take the room, so that an autoscaler does not count both pod and demand."""


class DemandSpec(_KebabStruct, frozen=True):
    units: tuple[DemandUnit, ...] = ()
    instance_group: str = ""
    is_long_lived: bool = False
    """A standing buffer that may change; others never do."""
    enforce_single_zone_scheduling: bool = False
    """All units in one zone of the autoscaler's choice."""
    zone: str | UnsetType | None = UNSET
    """All units in this zone."""


class DemandStatus(_KebabStruct, frozen=True):
    phase: str = DemandPhase.NEW.value
    last_transition_time: str | None = None
    fulfilled_zone: str | UnsetType | None = UNSET


class Demand(KubeStruct, frozen=True, omit_defaults=False):
    """``v1alpha2``. Status is a subresource, written by the autoscaler."""

    metadata: ObjectMeta
    spec: DemandSpec = DemandSpec()
    status: DemandStatus = DemandStatus()
    api_version: str = V1ALPHA2
    kind: str = KIND


DEMANDS = Resource(GROUP, "v1alpha2", "demands", KIND, Demand)


def ours_under_their_status(theirs: Demand, ours: Demand) -> Demand:
    """What is written over a demand: its status is the autoscaler's."""
    return msgspec.structs.replace(ours_on_top(theirs, ours), status=theirs.status)


def demand_name(pod_name: str) -> str:
    return f"demand-{pod_name}"


def application_units(driver: Pod, application: Application) -> tuple[DemandUnit, ...]:
    """A driver that waits: itself, and its minimum of executors if it has any, whose names nobody knows yet."""
    units = (DemandUnit(_whole(application.driver), 1, _named(driver)),)
    minimum = application.sizes.minimum
    return (*units, DemandUnit(_whole(application.executor), minimum)) if minimum > 0 else units


def executor_units(executor: Pod, application: Application) -> tuple[DemandUnit, ...]:
    """One executor that waits."""
    return (DemandUnit(_whole(application.executor), 1, _named(executor)),)


def new_demand(
    pod: Pod,
    app_id: str,
    instance_group: str,
    units: tuple[DemandUnit, ...],
    *,
    single_zone: bool,
    zone: str | None = None,
) -> Demand:
    """The demand of ``pod``, which owns it.

    ``single_zone``: the packer keeps an application in one zone. ``zone``: the one that this executor must be in.
    """
    return Demand(
        metadata=ObjectMeta(
            name=demand_name(pod.metadata.name),
            namespace=pod.metadata.namespace,
            labels={names.ARCHIVED_APP_ID_LABEL: app_id},
            owner_references=(owned_by(pod),),
        ),
        spec=DemandSpec(
            units=units,
            instance_group=instance_group,
            enforce_single_zone_scheduling=single_zone,
            zone=zone or UNSET,
        ),
    )


def _named(pod: Pod) -> dict[str, list[str]]:
    return {pod.metadata.namespace: [pod.metadata.name]}


def _whole(resources: Mapping[str, str]) -> dict[str, str]:
    return {**resources, GPU: resources.get(GPU, "0")}
