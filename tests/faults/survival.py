"""One fault run on the embedded cluster under virtual time.

``python -m tests.faults.survival SEED`` runs one alone and tells what Muster logged and what was injected.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from muster.devcluster.node_pool import NodePool
from muster.devcluster.virtual_application import VirtualApplication
from tests.faults.embedded_cluster import NAMESPACE, EmbeddedCluster
from tests.faults.fault_plan import (
    CutAllWatches,
    FaultPlan,
    KillLeader,
    PauseLeader,
    Rates,
    RestartApiServer,
    draw_plan,
)
from tests.faults.store_onlooker import GANGS, Onlooker

FAULTY_SECONDS = 45.0
SUBMITTING_SECONDS = 30.0
CONVERGENCE_SECONDS = 400.0
"""After the last fault: leases run out, back-offs end, and gangs that do not fit together run one after the other."""

TOO_LARGE, WHOLE = "too-large", "whole-cluster"
"""Names of the application that never fits, and of the one that fits when nothing has leaked."""


@dataclass(frozen=True)
class Scenario:
    """What a seed stands for."""

    plan: FaultPlan
    pool: NodePool
    applications: tuple[tuple[float, VirtualApplication], ...]
    """With the seconds after which they are submitted."""
    lost_node: tuple[float, str] | None

    @property
    def lasting_nodes(self) -> int:
        return self.pool.count - (self.lost_node is not None)


@dataclass(frozen=True)
class Outcome:
    seed: int
    problems: tuple[str, ...]
    """Nothing of it may be."""
    digest: str
    """Of all writes to the API server."""
    seconds: float
    """Virtual ones."""
    counts: dict[str, int]
    """What was injected and done."""
    submitted: tuple[str, ...]
    """Names of the applications that fit, in the order of their coming."""
    reserved: tuple[str, ...]
    """Those that were reserved, in that order."""


def scenario_of(seed: int, *, calm: bool = False) -> Scenario:
    luck = random.Random(f"scenario {seed}")
    plan = draw_plan(
        seed,
        faulty_seconds=FAULTY_SECONDS,
        longest_delay=luck.choice((1.0, 20.0)),
        weights={KillLeader: 3, PauseLeader: 3, RestartApiServer: 2, CutAllWatches: 2},
        most_events=5,
        api_down=6.0,
    )
    if calm:
        plan = FaultPlan(seed, 0.0, Rates(), ())
    pool = NodePool(count=luck.randint(3, 5), cpu=8)
    loses = not calm and luck.random() < 0.25
    lost = (luck.uniform(5.0, FAULTY_SECONDS), luck.choice(pool.node_names())) if loses else None
    lasting = pool.count - loses
    applications = [
        (luck.uniform(0.0, SUBMITTING_SECONDS), _application(f"app-{number}", luck, 7 * lasting))
        for number in range(luck.randint(4, 8))
    ]
    if luck.random() < 0.5:
        too_large = VirtualApplication(TOO_LARGE, namespace=NAMESPACE, executors=8 * pool.count, run_seconds=10)
        applications.append((luck.uniform(0.0, 15.0), too_large))
    return Scenario(plan, pool, tuple(applications), lost)


def _application(name: str, luck: random.Random, cores: int) -> VirtualApplication:
    """One that fits into so many cores, with its driver."""
    executors = luck.choice((2, 2, 3, 3, 4, 5, 6, 8))
    executor_cores = luck.choice((1, 1, 2)) if executors <= cores // 4 else 1
    run_seconds = luck.uniform(8.0, 30.0)
    if luck.random() < 0.35:
        return VirtualApplication(
            name,
            namespace=NAMESPACE,
            dynamic=True,
            executors=executors,
            min_executors=min(1, executors),
            max_executors=executors + luck.randint(0, 4),
            executor_cores=executor_cores,
            run_seconds=run_seconds,
            tail_seconds=luck.uniform(0.0, 10.0),
            properties={"spark.dynamicAllocation.executorIdleTimeout": "3s"},
        )
    return VirtualApplication(
        name, namespace=NAMESPACE, executors=executors, executor_cores=executor_cores, run_seconds=run_seconds
    )


class Survival:
    """A cluster, its onlooker and a scenario."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.scenario = scenario
        self.cluster = EmbeddedCluster(seed, scenario.pool)
        self.onlooker = Onlooker(self.cluster.store, lambda: self.cluster.simulation.now)
        self.errors: list[str] = []
        """What Muster logged as an error."""

    def run(self) -> list[str]:
        cluster, scenario = self.cluster, self.scenario
        cluster.begin()
        cluster.watch_over_replicas()
        begun = cluster.simulation.now
        for after, application in scenario.applications:
            self._submit(begun + after, application)
        if scenario.lost_node is not None:
            cluster.lose_node_at(begun + scenario.lost_node[0], scenario.lost_node[1])
        self._let_go_wrong(begun)
        cluster.run(lambda: False, FAULTY_SECONDS)
        problems = []
        if not self._converges():
            problems.append(f"after {CONVERGENCE_SECONDS:.0f} s without faults: {self._what_is_missing()}")
        else:
            problems += self._probe()
        self.onlooker.check_all_nodes()
        return [*problems, *self.onlooker.violations, *self.errors, *cluster.problems, *self._kubelets_say()]

    def _let_go_wrong(self, begun: float) -> None:
        cluster, plan = self.cluster, self.scenario.plan
        cluster.faults.follow(plan)
        for event in plan.events:
            match event:
                case KillLeader(at):
                    action = cluster.kill_leader
                case PauseLeader(at):
                    action = cluster.pause_leader
                case CutAllWatches(at):
                    action = cluster.cut_watches
                case RestartApiServer(at, down):

                    def action(down: float = down) -> None:
                        cluster.restart_api_server(down)

            cluster.simulation.call_at(begun + at, action)

    def _submit(self, when: float, application: VirtualApplication) -> str:
        identity = self.cluster.submit_at(when, application)
        self.onlooker.wanted[identity.application_id] = application
        return identity.application_id

    # --- the end -----------------------------------------------------------------------------------------------------

    def _converges(self) -> bool:
        end = self.cluster.simulation.now + CONVERGENCE_SECONDS
        while self._what_is_missing():
            if self.cluster.simulation.now >= end:
                return False
            self.cluster.run(lambda: False, 0.5)
        return True

    def _what_is_missing(self) -> str:
        """What has not happened yet of what must, in words."""
        if not self.cluster.is_served():
            return "two replicas, one of them leading, in step with the API server"
        for application, wanted in self.onlooker.wanted.items():
            phase, gang = self._driver_phase(application), self._gang_phase(application)
            if wanted.name == TOO_LARGE:
                if gang != ("Pending", "ExceedsCluster") and application not in self.onlooker.ungated:
                    return f"{wanted.name} is told that it exceeds the cluster, is {gang}"
            elif phase not in ("Succeeded", "Failed", "Gone"):
                return f"the end of {wanted.name} ({application}), its driver is {phase}, its gang {gang}"
            elif gang[0] not in ("Finished", "Gone"):
                return f"the end of gang {wanted.name} ({application}), it is {gang}"
        left = [name for name in self._executors_left() if name]
        return f"the end of executors {left}" if left else ""

    def _driver_phase(self, application: str) -> str:
        for record in self.cluster.store.collection("pods").scan():
            labels = record.obj["metadata"].get("labels") or {}
            if labels.get("spark-app-selector") == application and labels.get("spark-role") == "driver":
                gated = bool(record.obj["spec"].get("schedulingGates"))
                return "gated" if gated else str(record.obj["status"].get("phase"))
        return "Gone" if self.cluster.simulation.now > SUBMITTING_SECONDS + 30.0 else "not yet there"

    def _gang_phase(self, application: str) -> tuple[str, str]:
        record = self.cluster.store.collection(GANGS).get(NAMESPACE, application)
        status = record.obj.get("status") or {} if record else {}
        return (status.get("phase", ""), status.get("reason", "")) if record else ("Gone", "")

    def _executors_left(self) -> Iterator[str]:
        for record in self.cluster.store.collection("pods").scan():
            labels = record.obj["metadata"].get("labels") or {}
            wanted = self.onlooker.wanted.get(labels.get("spark-app-selector", ""))
            if labels.get("spark-role") == "executor" and wanted is not None and wanted.name != TOO_LARGE:
                yield record.obj["metadata"]["name"]

    def _probe(self) -> list[str]:
        """An application that needs each node almost whole starts only when nothing has leaked."""
        if any(wanted.name == TOO_LARGE and key in self.onlooker.ungated for key, wanted in self._wanted()):
            return []  # it runs, as far as it can, by ordinary scheduling
        cluster = self.cluster
        whole = VirtualApplication(
            WHOLE,
            namespace=NAMESPACE,
            executors=self.scenario.lasting_nodes,
            executor_cores=7,
            run_seconds=5,
            properties={"spark.kubernetes.driver.request.cores": "500m"},
        )
        application = self._submit(cluster.simulation.now + 1.0, whole)
        if cluster.run(lambda: self._driver_phase(application) == "Succeeded", 120.0):
            return []
        return [f"room has leaked: an application of the whole cluster does not run, {self._gang_phase(application)}"]

    def _wanted(self) -> list[tuple[str, VirtualApplication]]:
        return list(self.onlooker.wanted.items())

    def _kubelets_say(self) -> list[str]:
        if self.onlooker.ungated or not self.cluster.kubelets.rejected:
            return []  # pods that others placed while nobody answered for Muster may collide with its own
        return [f"nodes refused pods: {dict(self.cluster.kubelets.rejected)}"]


@contextmanager
def _listening_to_muster(survival: Survival, *, aloud: bool) -> Iterator[None]:
    """What it logs: errors are kept, everything is printed when ``aloud``."""

    def heard(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        line = f"{survival.cluster.simulation.now:9.3f} {method:8} " + " ".join(f"{k}={v}" for k, v in event.items())
        if method in ("error", "exception", "critical"):
            survival.errors.append(line)
        if aloud:
            print(line)
        raise structlog.DropEvent

    structlog.configure(processors=[heard], wrapper_class=structlog.make_filtering_bound_logger(20 if aloud else 40))
    try:
        yield
    finally:
        structlog.reset_defaults()


def survive(seed: int, *, calm: bool = False, aloud: bool = False) -> Outcome:
    """Run a seed. ``calm``: the same applications, and nothing goes wrong."""
    survival = Survival(seed, scenario_of(seed, calm=calm))
    with _listening_to_muster(survival, aloud=aloud):
        try:
            problems = survival.run()
        finally:
            survival.cluster.close()
    injected = dict(survival.cluster.faults.injected) | {
        "lives of replicas": len(survival.cluster.replicas),
        "ungated drivers": len(survival.onlooker.ungated),
        "applications": len(survival.onlooker.wanted),
    }
    wanted, onlooker = survival.onlooker.wanted, survival.onlooker
    submitted = sorted(survival.scenario.applications, key=lambda each: each[0])
    return Outcome(
        seed,
        tuple(problems),
        onlooker.digest,
        survival.cluster.simulation.now,
        injected,
        tuple(application.name for _, application in submitted if application.name != TOO_LARGE),
        tuple(wanted[key].name for key in onlooker.reserved if wanted[key].name != WHOLE),
    )


if __name__ == "__main__":
    number = int(sys.argv[1])
    print(scenario_of(number))
    outcome = survive(number, aloud=True)
    print(outcome)
    sys.exit(bool(outcome.problems))
