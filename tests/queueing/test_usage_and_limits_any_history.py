"""Any tree, any history of charges: what is counted is what a recount gives, and a refusal is a limit really broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.cluster.resources import Resources
from muster.queueing.config import DEFAULT, Limit, Maximum, Policy, QueueConfig
from muster.queueing.order import Queues
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge, QueueUsage

TOTAL = Resources.of(cpu=50, memory=50)
NAMES = ("a", "b", "c", "d", "e")
USERS = ("sue", "bob", "")
GROUPS = ("dev", "test", "ops")

counts = st.one_of(st.none(), st.integers(1, 4))
maxima = st.builds(
    lambda amounts: Maximum.of(**amounts),
    st.dictionaries(st.sampled_from(["cpu", "memory", "gpu"]), st.integers(0, 30)),
)
requests = st.builds(lambda cpu, memory, gpu: Resources.of(cpu=cpu, memory=memory, gpu=gpu), *[st.integers(0, 12)] * 3)


@st.composite
def limits(draw: st.DrawFn) -> tuple[Limit, ...]:
    """One for each of some names, as a queue may have them."""
    users = draw(st.lists(st.sampled_from(["sue", "bob", "*"]), unique=True))
    groups = draw(st.lists(st.sampled_from(["dev", "test", "*"]), unique=True))
    if groups == ["*"]:
        groups = ["*", "ops"]
    names = [((user,), ()) for user in users] + [((), (group,)) for group in groups]
    return tuple(
        Limit(users=one, groups=other, max=draw(maxima), max_applications=draw(st.integers(1, 4)))
        for one, other in draw(st.permutations(names))
    )


@st.composite
def trees(draw: st.DrawFn) -> list[QueueConfig]:
    return [
        QueueConfig(
            name=name,
            parent=draw(st.sampled_from(["", *NAMES[:index]])),
            policy=draw(st.sampled_from(list(Policy))),
            max=draw(maxima),
            limits=draw(limits()),
            max_applications=draw(counts),
            driver_share=draw(st.sampled_from([100, 100, 50, 10])),
        )
        for index, name in enumerate(NAMES[: draw(st.integers(1, len(NAMES)))])
    ]


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    driver = draw(requests)
    groups = tuple(draw(st.lists(st.sampled_from(GROUPS), unique=True)))
    queue, user = draw(st.sampled_from(NAMES)), draw(st.sampled_from(USERS))
    return Charge(queue, user, groups, driver + draw(requests), driver)


histories = st.lists(st.tuples(st.integers(0, 6).map(str), st.one_of(st.none(), charges())), max_size=12)


class Recount:
    """What is held, and which limits a request breaks, written down literally."""

    def __init__(self, configs: Sequence[QueueConfig], held: Iterable[Charge]) -> None:
        self.configs = {config.name: config for config in configs}
        self.held = list(held)

    def above(self, queue: str) -> list[QueueConfig]:
        """From the queue itself up to the root."""
        found = []
        while queue:
            found.append(self.configs[queue])
            queue = self.configs[queue].parent
        return found

    def group(self, charge: Charge) -> str:
        for config in self.above(charge.queue):
            named = [name for limit in config.limits for name in limit.groups]
            for name in named:
                if name != "*" and name in charge.groups:
                    return name
            if "*" in named and charge.groups:
                return "*"
        return ""

    def below(self, queue: str, which: Callable[[Charge], bool] = lambda charge: True) -> list[Charge]:
        return [
            charge
            for charge in self.held
            if charge.queue in self.configs and self.configs[queue] in self.above(charge.queue) and which(charge)
        ]

    def broken(self, asking: Charge, *, new: bool) -> list[tuple[str, str, str]]:
        """(kind, queue, resource) of every limit that does not hold once this is held too."""
        found = []
        group = self.group(asking) if asking.queue in self.configs else ""
        for config in self.above(asking.queue) if asking.queue in self.configs else []:
            name, everybody = config.name, self.below(config.name)
            found += [
                ("Queue", name, what) for what in _exceeded(config.max, config.max_applications, everybody, asking, new)
            ]
            found += [("DriverShare", name, what) for what in self._driver_share(config, everybody, asking)]
            for limit in self._of_user(config, asking.user):
                theirs = self.below(name, lambda charge: charge.user == asking.user)
                found += [
                    ("User", name, what) for what in _exceeded(limit.max, limit.max_applications, theirs, asking, new)
                ]
            for limit in config.limits:
                if group and group in limit.groups:
                    theirs = self.below(name, lambda charge: self.group(charge) == group)
                    found += [
                        ("Group", name, what)
                        for what in _exceeded(limit.max, limit.max_applications, theirs, asking, new)
                    ]
        return found

    def _of_user(self, config: QueueConfig, user: str) -> list[Limit]:
        own = [limit for limit in config.limits if user in limit.users]
        return own or [limit for limit in config.limits if "*" in limit.users]

    def _driver_share(self, config: QueueConfig, everybody: Sequence[Charge], asking: Charge) -> list[str]:
        drivers = [charge.driver for charge in everybody]
        if not any(driver.amounts for driver in drivers):
            return []
        ceilings = [dict(one.max.amounts) for one in self.above(config.name)]
        exceeded = []
        for what, asked in asking.driver.amounts:
            most = min((one[what] for one in ceilings if what in one), default=TOTAL.get(what))
            together = sum(driver.get(what) for driver in drivers) + asked
            if most and together > most * config.driver_share / 100 and config.driver_share < 100:
                exceeded.append(what)
        return exceeded


def _exceeded(most: Maximum, applications: int | None, held: Sequence[Charge], asking: Charge, new: bool) -> list[str]:
    found = [""] if new and applications is not None and len(held) + 1 > applications else []
    for what, amount in most.amounts:
        if asking.used.get(what) and sum(charge.used.get(what) for charge in held) + asking.used.get(what) > amount:
            found.append(what)
    return found


def remembered(usage: QueueUsage) -> dict[str, Any]:
    """Everything that is counted."""
    return {
        name: (
            account.resources(),
            account.applications,
            dict(account.drivers),
            {user: (one.resources(), one.applications) for user, one in account.users.items()},
            {group: (one.resources(), one.applications) for group, one in account.groups.items()},
        )
        for name, account in usage.accounts.items()
    }


@settings(max_examples=60)
@given(trees(), trees(), histories, histories)
def test_counting_by_differences_is_counting_anew(
    before: list[QueueConfig], after: list[QueueConfig], first: Any, then: Any
) -> None:
    queues = Queues(QueueTree(before))
    held: dict[str, Charge] = {}
    for step, history in enumerate((first, then)):
        if step:
            queues.replace(QueueTree(after))
        for key, charge in history:
            queues.charge(key, charge)
            held.pop(key, None)
            if charge is not None:
                held[key] = charge

    recount = Recount([*after, QueueConfig(name=DEFAULT)], held.values())
    assert queues.usage.charges == held
    for config in after:
        theirs = recount.below(config.name)
        account = queues.usage.accounts[config.name]
        assert account.resources() == sum((charge.used for charge in theirs), Resources())
        assert account.applications == len(theirs)
    fresh = Queues(QueueTree(after))
    for key in sorted(held, reverse=True):
        fresh.charge(key, held[key])
    assert remembered(queues.usage) == remembered(fresh.usage)

    for key in held:
        queues.charge(key, None)
    assert remembered(queues.usage) == remembered(Queues(QueueTree(after)).usage), "nothing is left of what is gone"


@settings(max_examples=100)
@given(trees(), histories, charges(), st.booleans())
def test_refused_exactly_when_a_limit_would_be_broken(
    configs: list[QueueConfig], history: Any, asking: Charge, new: bool
) -> None:
    queues = Queues(QueueTree(configs))
    held: dict[str, Charge] = {}
    for key, charge in history:
        queues.charge(key, charge)
        held.pop(key, None)
        if charge is not None:
            held[key] = charge

    broken = Recount(configs, held.values()).broken(asking, new=new)
    refusal = queues.refusal(asking, asking.used, asking.driver, TOTAL, new=new)

    if refusal is None:
        assert broken == []
    else:
        kind = refusal.kind.removesuffix("Max").removesuffix("Applications")
        assert (kind, refusal.queue, refusal.resource) in broken
        assert refusal.queue == broken[0][1], "the queue nearest to the leaf is named"
        if refusal.kind != "DriverShare":
            assert refusal.used + refusal.asked > refusal.limit


@settings(max_examples=100)
@given(trees(), histories, charges())
def test_never_is_what_an_empty_tree_refuses_and_then_it_is_refused_now(
    configs: list[QueueConfig], history: Any, asking: Charge
) -> None:
    queues = Queues(QueueTree(configs))
    for key, charge in history:
        queues.charge(key, charge)

    never = queues.never(asking, asking.used, asking.driver, TOTAL)

    assert (never is not None) == bool(Recount(configs, []).broken(asking, new=True))
    if never is not None:
        assert queues.refusal(asking, asking.used, asking.driver, TOTAL, new=True) is not None
