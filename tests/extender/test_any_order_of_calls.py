"""Whatever comes in whatever order: no node is overfilled, objects tell what is held, a restart changes nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.kube.objects import Pod
from tests.extender.virtual_cluster import Cluster

PACKERS = ["tightly-pack", "distribute-evenly", "single-az-minimal-fragmentation", "az-aware-tightly-pack"]


class Story:
    """Random events on a small cluster."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.cluster = Cluster(data.draw(st.sampled_from(PACKERS)))
        self.count = 0
        for _ in range(data.draw(st.integers(1, 3))):
            self.node()

    def draw(self, *options: object) -> object:
        return self.data.draw(st.sampled_from(options))

    def node(self) -> None:
        self.count += 1
        zone = self.draw("z1", "z2")
        labels = {"resource_channel": "batch-medium-priority", "topology.kubernetes.io/zone": str(zone)}
        self.cluster.node(f"n{self.count}", cpu=self.data.draw(st.integers(2, 8)), gpu=9, labels=labels)

    def driver(self) -> None:
        self.count += 1
        low = self.data.draw(st.integers(0, 3))
        driver = self.cluster.driver(
            f"app-{self.count}", minimum=low, maximum=low + self.data.draw(st.integers(0, 2)), executor=(2, "1", 0)
        )
        if self.data.draw(st.booleans()):
            self.cluster.schedule(driver)

    def executor(self) -> None:
        drivers = [pod for pod in self.cluster.pods.values() if pod.metadata.labels["spark-role"] == "driver"]
        if drivers:
            self.count += 1
            driver: Pod = self.data.draw(st.sampled_from(drivers))
            executor = self.cluster.executor(f"exec-{self.count}", driver.metadata.labels["spark-app-id"])
            if self.data.draw(st.booleans()):
                self.cluster.schedule(executor)

    def pod(self, *, bound: bool | None = None) -> Pod | None:
        pods = [
            pod
            for pod in self.cluster.pods.values()
            if bound is None or (bool(pod.spec.node_name) is bound and pod.status.phase in ("Pending", "Running"))
        ]
        found: Pod | None = self.data.draw(st.sampled_from(pods)) if pods else None
        return found

    def schedule(self) -> None:
        pod = self.pod(bound=False)
        if pod is not None:
            names = sorted(self.cluster.nodes)
            offered = self.data.draw(st.permutations(names))[self.data.draw(st.integers(0, len(names))) - len(names) :]
            ask = self.cluster.schedule if self.data.draw(st.booleans()) else self.cluster.ask
            ask(pod, offered)

    def end(self) -> None:
        pod = self.pod(bound=True)
        if pod is not None:
            self.cluster.change(pod, status={"phase": str(self.draw("Failed", "Succeeded"))})

    def delete(self) -> None:
        pod = self.pod()
        if pod is not None:
            self.cluster.delete(pod)
            app = pod.metadata.labels["spark-app-id"]
            if pod.metadata.labels["spark-role"] == "driver":  # the garbage collector's part
                self.cluster.reservations.delete("ns", app)
                self.cluster.filter.view.reservation_changed("ns", app, None)

    def wait(self) -> None:
        self.cluster.wait(self.data.draw(st.sampled_from([1, 20, 70])))

    def act(self) -> None:
        kinds = (self.driver, self.executor, self.executor, self.schedule, self.schedule, self.schedule)
        act = self.data.draw(st.sampled_from([*kinds, self.end, self.delete, self.wait, self.node]))
        act()


def overfilled(cluster: Cluster) -> dict[str, int]:
    """Cores that pods take on each node beyond what it has; each pod takes what its driver's annotations say."""
    used: Counter[str] = Counter()
    for pod in cluster.pods.values():
        if pod.spec.node_name and pod.status.phase not in ("Failed", "Succeeded"):
            used[pod.spec.node_name] += 1 if pod.metadata.labels["spark-role"] == "driver" else 2
    return {
        node: cores - int(cluster.nodes[node].status.allocatable["cpu"])
        for node, cores in used.items()
        if cores > int(cluster.nodes[node].status.allocatable["cpu"])
    }


def check_slots(cluster: Cluster) -> None:
    """As many of an application's executors as its minimum allows have a slot of their own, on their own node."""
    view = cluster.filter.view
    for application in view.known.applications.values():
        value = cluster.reservations.get(application.namespace, application.app_id)
        holding = view.scheduler.holding(application.key)
        if value is None or holding is None or application.sized is None:
            continue
        placed = dict(holding.executors)
        seated = {pod: slot.node for _, slot, pod in value.slots() if pod in placed}
        assert all(placed[pod] == node for pod, node in seated.items())
        ended = [pod for _, _, pod in value.slots() if pod in application.executors and pod not in placed]
        assert len(seated) + len(ended) >= min(application.sized.minimum, len(placed))


def written(cluster: Cluster) -> dict[str, object]:
    """Every reservation whose driver lives, and who runs above the minimum, once everything is caught up with.

    Who was answered above the minimum and is not bound yet is known to nobody else, and has to be asked about again.
    """
    cluster.ask(cluster.driver("probe", minimum=0, maximum=0, cpu=1000))
    cluster.filter.catch_up(len(cluster.pods))
    living = {key: app for key, app in cluster.filter.view.known.applications.items() if app.driver is not None}
    return {
        key: (
            value.spec,
            value.status,
            sorted({*app.soft} & {name for name, each in app.executors.items() if each.pod.node}),
        )
        for key, app in living.items()
        if (value := cluster.reservations.get(app.namespace, app.app_id)) is not None
    }


@pytest.mark.timeout(300)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_nothing_is_overfilled_and_a_restart_changes_nothing(data: st.DataObject) -> None:
    story = Story(data)
    cluster = story.cluster
    for _ in range(data.draw(st.integers(10, 25))):
        story.act()
        assert overfilled(cluster) == {}
        cluster.filter.view.scheduler.validate()
    before = written(cluster)
    check_slots(cluster)

    cluster.restart()

    assert written(cluster) == before
    cluster.filter.view.scheduler.validate()
