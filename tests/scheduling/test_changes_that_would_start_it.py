"""``Explanation.proposals``: each, when it is really made, starts the application at once; a smaller one does not.

Random clusters with queues, zones, taints and node pools; every proposal for everybody who waits is carried out on a
cluster of its own, through the same events as in life.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from muster.cluster.constraints import PodConstraints, Taint, Toleration
from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Policy, QueueConfig
from muster.scheduling.decisions import Decision
from muster.scheduling.events import ApplicationFound, NodeSeen, QueuesChanged
from muster.scheduling.explaining import Explanation, WaitsFor
from muster.scheduling.limits import LimitChange
from muster.scheduling.model import Application, Phase
from muster.scheduling.what_if import Change, Proposal
from tests.scheduling.cluster_story import GIB, App, Cluster, Spec, static

ZONE = "topology.kubernetes.io/zone"
GPU = Taint("gpu", "NoSchedule")
SEEDS = range(40)


# Whether it starts


@pytest.mark.parametrize("seed", SEEDS)
def test_each_change_starts_the_application_at_once(seed: int) -> None:
    for key, explanation in waiting_on(busy(seed)):
        for proposal in explanation.proposals:
            assert carried_out(busy(seed), key, proposal), f"{key}: {proposal}"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_next_smaller_change_does_not(seed: int) -> None:
    for key, explanation in waiting_on(busy(seed)):
        for proposal in explanation.proposals:
            for smaller in next_smaller(proposal, explanation):
                assert not carried_out(busy(seed), key, smaller), f"{key}: {smaller} is enough, told was {proposal}"


@pytest.mark.parametrize("seed", SEEDS)
def test_quota_and_capacity_are_not_mixed_up(seed: int) -> None:
    for _, explanation in waiting_on(busy(seed)):
        kinds = {proposal.kind for proposal in explanation.proposals}
        if explanation.waits_for is WaitsFor.QUOTA:
            assert Change.MORE_NODES not in kinds and Change.CONSTRAINT not in kinds
        if explanation.waits_for is WaitsFor.CAPACITY:
            assert Change.HIGHER_LIMITS not in kinds
            assert explanation.quota is None


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_changes_by_asking(seed: int) -> None:
    asked, unasked = busy(seed), busy(seed)
    for key in sorted(asked.applications):
        asked.scheduler.explain(key, asked.at)
    asked.scheduler.validate()
    assert later(asked, seed) == later(unasked, seed)


def test_the_random_clusters_have_proposals_of_every_kind() -> None:
    kinds = {
        proposal.kind
        for seed in SEEDS
        for _, explanation in waiting_on(busy(seed))
        for proposal in explanation.proposals
    }
    assert kinds == set(Change)


def busy(seed: int) -> Cluster:
    """Some run, some wait: for room, for quota, for each other."""
    chance = random.Random(seed)
    cluster = Cluster()
    for _ in range(chance.randint(2, 4)):
        zone, pool = chance.choice(("a", "b")), chance.choice(("", "", "batch"))
        taints = (GPU,) if chance.random() < 0.2 else ()
        cluster.with_nodes(chance.randint(1, 2), cpu=chance.choice((8000, 16000)), zone=zone, pool=pool, taints=taints)
    cluster.with_queues(*_queues(chance))
    apps: list[App] = []
    for _ in range(chance.randint(4, 12)):
        apps.append(cluster.submit(_spec(chance)))
        if chance.random() < 0.2:
            apps.pop(chance.randrange(len(apps))).end().collect()
        if apps and chance.random() < 0.3 and apps[-1].status.phase is Phase.RUNNING:
            apps[-1].start_executors(chance.randint(1, 2))
    return cluster.wait(1)


def _queues(chance: random.Random) -> list[QueueConfig]:
    limits = (Limit(users=("*",), max=Maximum.of(cpu=chance.choice((8000, 20000)))),) if chance.random() < 0.5 else ()
    most = Maximum.of(cpu=chance.choice((6000, 12000, 40000)), memory=chance.choice((16, 64)) * GIB)
    return [
        QueueConfig("etl", max=most if chance.random() < 0.6 else Maximum(), policy=chance.choice(list(Policy))),
        QueueConfig("team", max_applications=chance.choice((None, 2)), policy=Policy.FAIR),
        QueueConfig("hourly", parent="team", limits=limits, driver_share=chance.choice((100, 20))),
        QueueConfig("nightly", parent="team", guaranteed=Resources.of(cpu=2000), policy=chance.choice(list(Policy))),
    ]


def _spec(chance: random.Random) -> Spec:
    spec = static(chance.randint(0, 8)).queued(
        chance.choice(("default", "etl", "hourly", "nightly")), chance.choice(("ann", "bob")), chance.randint(0, 2)
    )
    selector = ((ZONE, chance.choice(("a", "b"))),) if chance.random() < 0.4 else ()
    spec = msgspec.structs.replace(spec, constraints=PodConstraints(node_selector=selector))
    spec = spec.in_pool("batch") if chance.random() < 0.2 else spec
    return spec.running_for(chance.choice((None, 50.0, 500.0)))


def waiting_on(cluster: Cluster) -> list[tuple[str, Explanation]]:
    """Those who wait in a queue, and what they are told."""
    explained = [(key, cluster.explain(key)) for key in sorted(cluster.applications)]
    return [(key, explanation) for key, explanation in explained if explanation.position is not None]


def carried_out(cluster: Cluster, key: str, proposal: Proposal) -> bool:
    """Whether the application starts when the change is made."""
    application = cluster.applications[key]
    app = App(cluster, key, Spec(application.minimum, application.maximum))
    match proposal.kind:
        case Change.FEWER_EXECUTORS:
            assert proposal.executors is not None
            _found(
                cluster, msgspec.structs.replace(application, minimum=proposal.executors, maximum=proposal.executors)
            )
        case Change.CONSTRAINT:
            _constrained(cluster, app, application, proposal)
        case Change.MORE_NODES:
            assert proposal.nodes is not None
            new = [_new_node(cluster, proposal.nodes.like, number) for number in range(proposal.nodes.count)]
            for node in new[1:]:  # all at once: nobody's turn comes while only some of them are there
                cluster.scheduler._state.table.upsert(node)
            cluster.tell(NodeSeen(cluster.at, new[0]))
        case Change.HIGHER_LIMITS:
            for change in proposal.limits:
                cluster.queues = tuple(_with_limit(queue, change) for queue in cluster.queues)
            cluster.tell(QueuesChanged(cluster.at, cluster.queues))
        case Change.AHEAD:
            cluster.remove(App(cluster, proposal.ahead, app.spec).driver)
    cluster.scheduler.validate()
    return not cluster.pods[app.driver_id].gated


def _new_node(cluster: Cluster, like: str, number: int) -> Node:
    """Of nodes that are alike the packers take the first by name: it is named as in the trial."""
    node, name = cluster.nodes[like], f"{like}.new-{number}"
    return msgspec.structs.replace(node, name=name, labels={**node.labels, "kubernetes.io/hostname": name})


def _found(cluster: Cluster, application: Application) -> None:
    cluster.applications[application.key] = application
    cluster.tell(ApplicationFound(cluster.at, application))


def _constrained(cluster: Cluster, app: App, application: Application, proposal: Proposal) -> None:
    assert proposal.constraint is not None and application.driver is not None
    before, change = application.executor.constraints, proposal.constraint
    key = change.without_label.partition("=")[0]
    selector = tuple(pair for pair in before.node_selector if pair[0] != key)
    tolerations = (*before.tolerations, *((Toleration("gpu", "Exists"),) if change.toleration else ()))
    after = PodConstraints(selector, before.terms, tolerations)
    driver = cluster.pods[app.driver_id]
    cluster.pods[app.driver_id] = msgspec.structs.replace(driver, constraints=after)
    application = msgspec.structs.replace(
        application,
        driver=msgspec.structs.replace(application.driver, constraints=after),
        executor=msgspec.structs.replace(application.executor, constraints=after),
        pool=dict(selector).get("muster.dev/pool", ""),
    )
    cluster.see(cluster.pods[app.driver_id])
    if cluster.pods[app.driver_id].gated:
        _found(cluster, application)


def _with_limit(queue: QueueConfig, change: LimitChange) -> QueueConfig:
    if queue.name != change.queue:
        return queue
    if change.field == "driverShare":
        return msgspec.structs.replace(queue, driver_share=int(change.needed.rstrip("%")))
    if change.user:
        [limit] = queue.limits
        return msgspec.structs.replace(queue, limits=(msgspec.structs.replace(limit, max=_max(limit.max, change)),))
    if change.field == "maxApplications":
        return msgspec.structs.replace(queue, max_applications=int(change.needed))
    return msgspec.structs.replace(queue, max=_max(queue.max, change))


def _max(most: Maximum, change: LimitChange) -> Maximum:
    needed = Maximum.parse({change.resource: change.needed})
    return Maximum(tuple(sorted({**dict(most.amounts), **dict(needed.amounts)}.items())))


def next_smaller(proposal: Proposal, explanation: Explanation) -> Iterator[Proposal]:
    """The same kind of change by one less."""
    if proposal.executors is not None and proposal.executors + 1 < explanation.minimum:
        yield msgspec.structs.replace(proposal, executors=proposal.executors + 1)
    if proposal.nodes is not None and proposal.nodes.count > 1:
        fewer = msgspec.structs.replace(proposal.nodes, count=proposal.nodes.count - 1)
        yield msgspec.structs.replace(proposal, nodes=fewer)
    for number, change in enumerate(proposal.limits):
        others = proposal.limits[:number] + proposal.limits[number + 1 :]
        yield msgspec.structs.replace(proposal, limits=(*others, msgspec.structs.replace(change, needed=_less(change))))


def _less(change: LimitChange) -> str:
    if change.field == "driverShare":
        return f"{int(change.needed.rstrip('%')) - 1}%"
    if change.field == "maxApplications":
        return str(int(change.needed) - 1)
    [(_, amount)] = Maximum.parse({change.resource: change.needed}).amounts
    return f"{amount - 1}m" if change.resource == "cpu" else str(amount - 1)


def later(cluster: Cluster, seed: int) -> list[Decision]:
    """What is decided in the time that follows."""
    chance = random.Random(seed + 1)
    begun = len(cluster.decisions)
    for _ in range(6):
        match chance.randrange(4):
            case 0:
                cluster.with_nodes(1, zone="a")
            case 1:
                cluster.submit(_spec(chance))
            case 2:
                running = [pod for pod in cluster.pods.values() if pod.node and pod.name.endswith("-driver")]
                if running:
                    cluster.remove(chance.choice(running))
            case 3:
                cluster.wait(5)
    return cluster.decisions[begun:]
