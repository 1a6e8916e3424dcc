"""What is told about queues: what they hold beside what they may, and who waits in which order."""

from __future__ import annotations

import msgspec

from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Policy, QueueConfig, Submitters
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge
from muster.scheduling.queue_report import report_queue, report_queues

GIB = 2**30
TOTAL = Resources.of(cpu=100_000, memory=1000 * GIB)


def two_teams() -> Queues:
    """A company of 100 cores; team a holds 40 (25 alice's, 15 bob's), team b 10; three wait in a, one in b."""
    queues = Queues(
        QueueTree(
            [
                QueueConfig("company", policy=Policy.FAIR, max=Maximum.of(cpu=80_000)),
                QueueConfig(
                    "a",
                    "company",
                    policy=Policy.FAIR,
                    guaranteed=Resources.of(cpu=50_000),
                    limits=(Limit(users=("*",), max=Maximum.of(cpu=30_000, **{"nvidia.com/gpu": 0})),),
                    submitters=Submitters(groups=("team-a",)),
                ),
                QueueConfig("b", "company", weight=2),
            ]
        )
    )
    held = {
        "a/1": ("a", "alice", 25_000, 100),
        "a/2": ("a", "bob", 15_000, 500),
        "b/1": ("b", "carol", 10_000, 20),
    }
    for key, (queue, user, cpu, memory) in held.items():
        driver = Resources.of(cpu=1_000, memory=GIB)
        queues.charge(key, Charge(queue, user, (), Resources.of(cpu=cpu, memory=memory * GIB), driver))
    for key, created, queue, user in (
        ("a/3", 1.0, "a", "alice"),
        ("a/4", 2.0, "a", "bob"),
        ("b/2", 3.0, "b", "carol"),
        ("a/5", 4.0, "a", "bob"),
    ):
        queues.add(Entry(created, key, queue, user))
    return queues


def test_a_parent_counts_what_is_below_it() -> None:
    reports = {report.name: report for report in report_queues(two_teams(), TOTAL)}
    assert list(reports) == ["company", "a", "b", "default"], "parents before children"
    company = reports["company"]
    assert (company.running, company.waiting, company.leaf) == (3, 4, False)
    assert company.used == {"cpu": "50", "memory": "620Gi"}
    assert company.drivers == {"cpu": "3", "memory": "3Gi"}
    assert company.max == {"cpu": "80"}
    assert (reports["b"].running, reports["b"].waiting, reports["b"].weight) == (1, 1, 2)
    assert (reports["default"].running, reports["default"].used) == (0, {})


def test_a_share_is_the_largest_part_of_any_resource() -> None:
    """DRF (Ghodsi et al., NSDI 2011): a holds 40 % of the cores but 60 % of the memory."""
    reports = {report.name: report for report in report_queues(two_teams(), TOTAL)}
    assert (reports["a"].share, reports["b"].share, reports["default"].share) == (0.6, 0.1, 0.0)


def test_one_queue_tells_its_limits_users_and_who_waits_in_which_order() -> None:
    details = report_queue(two_teams(), "a", TOTAL, lambda key: (f"name of {key}", "OverQuota", "later"))
    assert details is not None
    assert (details.path, details.children) == (("company", "a"), ())
    [limit] = details.limits
    assert (limit.users, limit.max) == (("*",), {"cpu": "30", "nvidia.com/gpu": "0"}), "0 is a limit too"
    assert details.submitters == {"groups": ("team-a",)}
    assert [(u.user, u.running, u.waiting, u.used["cpu"]) for u in details.users] == [
        ("alice", 1, 1, "25"),
        ("bob", 1, 2, "15"),
    ]
    # a holds less than its guarantee and goes first; in it alice, whose dominant share is 25 %, before bob with 50 %
    assert [(w.position, w.application) for w in details.waiting] == [(1, "a/3"), (2, "a/4"), (3, "a/5")]
    [carols] = report_queue(two_teams(), "b", TOTAL, lambda _: ("", "", "")).waiting
    assert (carols.position, carols.application) == (4, "b/2"), "positions are among all of the node pool"
    first = details.waiting[0]
    assert (first.name, first.reason, first.message, first.user) == ("name of a/3", "OverQuota", "later", "alice")


def test_what_is_asked_of_a_parent_covers_all_below_it() -> None:
    details = report_queue(two_teams(), "company", TOTAL, lambda key: ("", "", ""))
    assert details is not None
    assert [user.user for user in details.users] == ["alice", "bob", "carol"]
    assert {one.application for one in details.waiting} == {"a/3", "a/4", "a/5", "b/2"}
    assert details.children == ("a", "b")


def test_a_queue_that_does_not_exist_is_not_told_about() -> None:
    assert report_queue(two_teams(), "c", TOTAL, lambda key: ("", "", "")) is None
    assert report_queue(two_teams(), "", TOTAL, lambda key: ("", "", "")) is None


def test_asking_changes_nothing() -> None:
    queues = two_teams()
    first = report_queue(queues, "a", TOTAL, lambda key: ("", "", ""))
    assert report_queue(queues, "a", TOTAL, lambda key: ("", "", "")) == first
    assert msgspec.json.encode(first) == msgspec.json.encode(report_queue(two_teams(), "a", TOTAL, lambda _: ("",) * 3))
