"""Which demands there should be: one for each pod that waits for room, from the moment that is known to the last."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from muster.control.extender.demands import Demand, demand_name, new_demand
from muster.control.extender.demands import DemandUnit as Unit
from muster.control.extender.pods import instance_group
from muster.control.extender.stores import Announce, Store
from muster.kube.objects import Pod
from muster.kube.timestamps import parse_time

CREATED = "foundry.spark.scheduler.demand_created"
DELETED = "foundry.spark.scheduler.demand_deleted"


class Source(StrEnum):
    """Who found that a demand is no longer needed; the field ``source`` of its event."""

    EXTENDER = "SparkSchedulerExtender"
    """The pod was told its node."""
    COLLECTION = "DemandGC"
    """The pod was scheduled, or is gone."""
    RECONCILER = "Reconciler"


class DemandBook:
    """``store`` is ``None`` while ``Demand`` is not defined in the cluster: then nothing is demanded.

    Demands are told apart by their pods; what a pod demands may change. ``single_zone``: the packer keeps gangs in
    one. ``label``: the node label of instance groups.
    """

    def __init__(
        self,
        store: Store[Demand] | None,
        *,
        label: str,
        single_zone: bool,
        clock: Callable[[], float],
        announce: Announce,
    ) -> None:
        self.store = store
        self._label = label
        self._single_zone = single_zone
        self._clock = clock
        self._announce = announce

    def need(self, pod: Pod, app_id: str, units: tuple[Unit, ...], zone: str | None = None) -> None:
        """``pod`` waits for room. Without an instance group nothing can be demanded; the schema requires one."""
        if self.store is None:
            return
        group = instance_group(pod.spec, self._label)
        namespace, name = pod.metadata.namespace, pod.metadata.name
        if not group:
            self._announce("no demand: the pod names no instance group", {"podNamespace": namespace, "podName": name})
            return
        wanted = new_demand(pod, app_id, group, units, single_zone=self._single_zone, zone=zone)
        there = self.store.get(namespace, wanted.metadata.name)
        if there is not None and there.metadata.owner_references == wanted.metadata.owner_references:
            if there.spec != wanted.spec:
                self.store.update(msgspec.structs.replace(there, spec=wanted.spec))
            return
        if there is not None:  # of an earlier pod of this name
            self.store.delete(namespace, wanted.metadata.name)
        self.store.create(wanted)
        self._announce(
            CREATED, {"instanceGroup": group, "demandNamespace": namespace, "demandName": wanted.metadata.name}
        )

    def drop(self, namespace: str, pod_name: str, source: Source) -> None:
        """The pod waits no longer."""
        if self.store is None:
            return
        demand = self.store.get(namespace, demand_name(pod_name))
        if demand is None:
            return
        self.store.delete(namespace, demand.metadata.name)
        created = demand.metadata.creation_timestamp
        age = round(self._clock() - parse_time(created)) if created else 0
        self._announce(
            DELETED,
            {
                "instanceGroup": demand.spec.instance_group,
                "demandNamespace": namespace,
                "demandName": demand.metadata.name,
                "demandAgeSeconds": age,
                "demandCreationTime": created or "",
                "source": source.value,
            },
        )

    def sweep(self, waits: Callable[[str, str], bool]) -> None:
        """Drop the demands of pods that wait no longer, found at a start. ``waits``: by namespace and pod name."""
        for demand in list(self.store or ()):
            owner = next((each.name for each in demand.metadata.owner_references if each.kind == "Pod"), "")
            name = demand.metadata.name
            if name == demand_name(owner) and not waits(demand.metadata.namespace, owner):
                self.drop(demand.metadata.namespace, owner, Source.RECONCILER)
