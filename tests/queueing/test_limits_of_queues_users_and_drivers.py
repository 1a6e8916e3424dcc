"""Single limits, as YuniKorn documents those of users and groups, and YARN its share for application masters."""

from __future__ import annotations

from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, QueueConfig
from muster.queueing.order import Queues
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge, Refusal, RefusalKind

TOTAL = Resources.of(cpu=1_000_000, memory=10_000 * 2**30)
NOTHING = Resources()


def cpus(count: int) -> Resources:
    return Resources.of(cpu=count * 1000)


def refusal(queues: Queues, charge: Charge, *, new: bool = True) -> Refusal | None:
    return queues.refusal(charge, charge.used, charge.driver, TOTAL, new=new)


def test_a_gang_is_refused_whole_by_the_nearest_queue_that_cannot_hold_it() -> None:
    queues = Queues(
        QueueTree(
            [
                QueueConfig(name="etl", max=Maximum.of(cpu=100_000)),
                QueueConfig(name="nightly", parent="etl"),
                QueueConfig(name="hourly", parent="etl", max=Maximum.of(cpu=40_000)),
            ]
        )
    )
    queues.charge("a/1", Charge("nightly", used=cpus(70)))

    assert refusal(queues, Charge("hourly", used=cpus(30))) is None
    assert refusal(queues, Charge("hourly", used=cpus(31))) == Refusal(
        RefusalKind.QUEUE_MAX, "etl", "cpu", limit=100_000, used=70_000, asked=31_000
    )
    assert refusal(queues, Charge("hourly", used=cpus(41))) == Refusal(
        RefusalKind.QUEUE_MAX, "hourly", "cpu", limit=40_000, used=0, asked=41_000
    )


def test_none_of_a_resource() -> None:
    queues = Queues(QueueTree([QueueConfig(name="etl", max=Maximum.parse({"nvidia.com/gpu": "0"}))]))

    refused = refusal(queues, Charge("etl", used=Resources.parse({"nvidia.com/gpu": 1})))

    assert refused is not None
    assert refused.message() == 'queue "etl" may hold nvidia.com/gpu 0, asks for 1 alone'
    assert refusal(queues, Charge("etl", used=cpus(1))) is None


def test_applications_are_counted_in_the_queue_and_above_and_extras_are_no_application() -> None:
    queues = Queues(QueueTree([QueueConfig(name="etl", max_applications=1), QueueConfig(name="nightly", parent="etl")]))
    queues.charge("a/1", Charge("nightly", used=cpus(1)))

    refused = refusal(queues, Charge("nightly", used=cpus(1)))

    assert refused == Refusal(RefusalKind.QUEUE_APPLICATIONS, "etl", "", limit=1, used=1, asked=1)
    assert refused.message() == 'queue "etl" may run 1 application(s) at once, and runs 1'
    assert refusal(queues, Charge("nightly", used=cpus(1)), new=False) is None


def test_example_of_yunikorn_with_users_groups_and_catch_alls() -> None:
    """The limits of "User Based Quota Enforcement", with its quantities; sue has her own, others that of "*" each."""
    limits = (
        Limit(users=("sue",), max=Maximum.parse({"memory": "25G", "cpu": 5})),
        Limit(groups=("development", "test"), max=Maximum.parse({"memory": "100G", "cpu": 10})),
        Limit(users=("*",), max=Maximum.parse({"memory": "10G", "cpu": 1})),
        Limit(groups=("*",), max=Maximum.parse({"memory": "50G", "cpu": 10})),
    )
    queues = Queues(QueueTree([QueueConfig(name="root", limits=limits)]))

    def ask(user: str, gigabytes: int, *groups: str) -> RefusalKind | None:
        refused = refusal(queues, Charge("root", user, groups, Resources.parse({"memory": f"{gigabytes}G"})))
        return refused.kind if refused is not None else None

    assert ask("sue", 25) is None
    assert ask("sue", 26) is RefusalKind.USER_MAX
    assert ask("bob", 11) is RefusalKind.USER_MAX

    for number in range(1, 11):  # ten developers with 10 GB each
        assert ask(f"dev-{number}", 10, "development") is None
        queues.charge(
            f"d/{number}", Charge("root", f"dev-{number}", ("development",), Resources.parse({"memory": "10G"}))
        )
    assert ask("dev-11", 1, "development") is RefusalKind.GROUP_MAX
    assert ask("tester", 10, "test") is None, "each group by itself"
    assert ask("dev-11", 1, "test", "development") is RefusalKind.GROUP_MAX, "the first of its limits counts"

    for number in range(1, 6):  # five of other groups with 10 GB each, together
        assert ask(f"other-{number}", 10, f"group-{number}") is None
        queues.charge(
            f"o/{number}", Charge("root", f"other-{number}", (f"group-{number}",), Resources.parse({"memory": "10G"}))
        )
    assert ask("other-6", 1, "group-6") is RefusalKind.GROUP_MAX
    assert ask("bob", 10) is None, "who is in no group counts for none"


def test_unknown_users_share_one_limit_of_the_catch_all() -> None:
    limits = (Limit(users=("*",), max_applications=1),)
    queues = Queues(QueueTree([QueueConfig(name="etl", limits=limits)]))
    queues.charge("a/1", Charge("etl", "", used=cpus(1)))

    refused = refusal(queues, Charge("etl", "", used=cpus(1)))

    assert refused is not None
    assert refused.message() == 'each unknown user in queue "etl" may run 1 application(s) at once, and runs 1'
    assert refusal(queues, Charge("etl", "sue", used=cpus(1))) is None


def test_group_is_found_from_the_leaf_up_and_a_star_ends_the_search() -> None:
    """YuniKorn, ``ugm.Manager.ensureGroupInternal``."""
    one = Maximum.of(cpu=1000)
    tree = QueueTree(
        [
            QueueConfig(name="top", limits=(Limit(groups=("ops", "dev"), max=one),)),
            QueueConfig(name="leaf", parent="top", limits=(Limit(groups=("test",), max=one),)),
            QueueConfig(
                name="starred", parent="top", limits=(Limit(groups=("test",), max=one), Limit(groups=("*",), max=one))
            ),
        ]
    )

    assert tree.group_of("leaf", ("dev", "test")) == "test"
    assert tree.group_of("leaf", ("dev", "ops")) == "ops", "the order of the limits, not of the user's groups"
    assert tree.group_of("starred", ("dev",)) == "*"
    assert tree.group_of("leaf", ("sales",)) == ""
    assert tree.group_of("leaf", ()) == ""


def test_drivers_share_of_the_smallest_maximum_above_or_else_of_the_cluster() -> None:
    queues = Queues(
        QueueTree(
            [
                QueueConfig(name="etl", max=Maximum.of(cpu=100_000)),
                QueueConfig(name="nightly", parent="etl", driver_share=10),
            ]
        )
    )
    queues.charge("a/1", Charge("nightly", used=cpus(20), driver=cpus(8)))
    memory = Resources.parse({"memory": "1Gi"})

    assert refusal(queues, Charge("nightly", used=cpus(2), driver=cpus(2))) is None
    refused = refusal(queues, Charge("nightly", used=cpus(3), driver=cpus(3)))
    assert refused == Refusal(RefusalKind.DRIVER_SHARE, "nightly", "cpu", limit=10_000, used=8000, asked=3000)
    assert (
        refused.message() == 'the drivers of queue "nightly" together may hold cpu 10, holds 8, and 3 more is asked for'
    )
    assert refusal(queues, Charge("nightly", used=memory.times(1000), driver=memory.times(1000))) is None
    assert refusal(queues, Charge("nightly", used=memory.times(1001), driver=memory.times(1001))) is not None
    assert refusal(queues, Charge("nightly", used=cpus(30)), new=False) is None, "executors are no drivers"


def test_a_first_driver_may_start_however_small_the_share() -> None:
    """YARN, LeafQueue: "skipping enforcement to allow at least one application to start"."""
    queues = Queues(QueueTree([QueueConfig(name="etl", driver_share=1, max=Maximum.of(cpu=10_000))]))
    driver = Charge("etl", used=cpus(1), driver=cpus(1))

    assert refusal(queues, driver) is None
    assert queues.never(driver, driver.used, driver.driver, TOTAL) is None

    queues.charge("a/1", driver)
    refused = refusal(queues, driver)
    assert refused is not None
    assert refused.kind is RefusalKind.DRIVER_SHARE


def test_never_speaks_of_what_is_asked_not_of_what_is_held() -> None:
    queues = Queues(QueueTree([QueueConfig(name="etl", max=Maximum.of(cpu=10_000))]))
    queues.charge("a/1", Charge("etl", used=cpus(10)))
    fitting, too_large = Charge("etl", used=cpus(10)), Charge("etl", used=cpus(11))

    assert queues.never(fitting, fitting.used, NOTHING, TOTAL) is None
    never = queues.never(too_large, too_large.used, NOTHING, TOTAL)
    assert never is not None
    assert never.message() == 'queue "etl" may hold cpu 10, asks for 11 alone'


def test_lowered_limits_refuse_what_asks_for_more_and_nothing_else() -> None:
    queues = Queues(QueueTree([QueueConfig(name="etl")]))
    queues.charge("a/1", Charge("etl", used=Resources.of(cpu=10_000, gpu=4)))

    queues.replace(QueueTree([QueueConfig(name="etl", max=Maximum.of(gpu=2))]))

    assert refusal(queues, Charge("etl", used=cpus(1))) is None
    assert refusal(queues, Charge("etl", used=Resources.of(gpu=1))) is not None
