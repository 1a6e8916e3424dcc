"""Which queue an application goes to, and who may submit there."""

from __future__ import annotations

import pytest

from muster.queueing.config import DEFAULT, QueueConfig, Submitters
from muster.queueing.rules import Rule, RuleError, Submission, check_rules, denial, queue_of
from muster.queueing.tree import QueueTree

RULES = (Rule("of-{namespace}", namespace="team-*"), Rule("late"))


@pytest.mark.parametrize(
    ("submission", "queue"),
    [
        (
            Submission(
                "team-a",
                annotations={"muster.dev/queue": "first", "yunikorn.apache.org/queue": "root.no"},
                labels={"muster.dev/queue": "no", "queue": "root.no"},
            ),
            "first",
        ),
        (Submission("team-a", labels={"muster.dev/queue": "second", "queue": "root.no"}), "second"),
        (Submission("team-a", labels={"queue": "root.etl.nightly"}), "nightly"),
        (Submission("team-a", annotations={"queue": "nightly"}), "nightly"),
        (Submission("team-a", annotations={"yunikorn.apache.org/queue": "root.etl.nightly"}), "nightly"),
        (Submission("team-a", labels={"muster.dev/queue": "", "queue": "root."}), "of-team-a"),
        (Submission("other"), "late"),
    ],
)
def test_what_the_driver_says_comes_before_the_rules(submission: Submission, queue: str) -> None:
    assert queue_of(submission, RULES) == queue


def test_default_is_for_those_that_no_rule_matches() -> None:
    assert queue_of(Submission("other"), RULES[:1]) == DEFAULT


SUBMISSION = Submission(
    "team-a",
    service_account="spark-etl",
    user="system:serviceaccount:ci:airflow",
    groups=("system:authenticated", "data"),
    labels={"app": "nightly-load", "tier": ""},
)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule("q", namespace="team-?"), True),
        (Rule("q", namespace="team"), False),
        (Rule("q", service_account="spark-*"), True),
        (Rule("q", service_account="[a-r]*"), False),
        (Rule("q", user="system:serviceaccount:ci:*"), True),
        (Rule("q", user="SYSTEM:*"), False),
        (Rule("q", group="d*a"), True),
        (Rule("q", group="sales"), False),
        (Rule("q", label={"app": "nightly-*", "tier": ""}), True),
        (Rule("q", label={"app": "nightly-*", "cost": "*"}), False),
        (Rule("q", namespace="team-a", group="sales"), False),
    ],
)
def test_every_pattern_of_a_rule_must_match(rule: Rule, matches: bool) -> None:
    assert rule.matches(SUBMISSION) is matches


def test_placeholders() -> None:
    rules = (Rule("{namespace}-{user}"), Rule("unknown-in-{namespace}"))

    assert queue_of(Submission("ns", user="sue"), rules) == "ns-sue"
    assert queue_of(Submission("ns"), rules) == "unknown-in-ns"
    assert queue_of(Submission("ns", user="{namespace}"), (Rule("{user}"),)) == "{namespace}"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(""), "rules[1].queue: is empty; a rule names the queue that its applications go to"),
        (Rule("{team}"), 'rules[1].queue: "{team}" is unknown; there are "{namespace}", "{user}"'),
        (Rule("{}"), 'rules[1].queue: "{}" is unknown; there are "{namespace}", "{user}"'),
    ],
)
def test_rules_are_checked(rule: Rule, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        check_rules((Rule("{namespace}-{user}"), rule))

    assert str(caught.value) == message


TREE = QueueTree(
    [
        QueueConfig(name="etl", submitters=Submitters(groups=("data",), service_accounts=("ci/airflow", "spark"))),
        QueueConfig(name="nightly", parent="etl", submitters=Submitters(users=("sue",), service_accounts=("*",))),
        QueueConfig(name="hourly", parent="etl", submitters=Submitters(users=("sue",))),
    ]
)


@pytest.mark.parametrize(
    ("user", "groups", "refused_by"),
    [
        ("sue", ("data",), ""),
        ("bob", ("data",), "hourly"),
        ("sue", ("sales",), "etl"),
        ("", (), "etl"),
        ("system:serviceaccount:ci:airflow", (), "hourly"),
        ("system:serviceaccount:any:spark", (), "hourly"),
        ("system:serviceaccount:other:airflow", (), "etl"),
    ],
)
def test_every_queue_on_the_way_must_take_the_creator(user: str, groups: tuple[str, ...], refused_by: str) -> None:
    denied = denial(TREE, "hourly", user, groups)

    assert (denied.queue if denied is not None else "") == refused_by


def test_a_star_takes_everybody_and_so_does_a_queue_that_says_nothing() -> None:
    assert denial(TREE, "nightly", "bob", ("data",)) is None
    assert denial(TREE, DEFAULT, "", ()) is None


def test_denial_says_who_is_allowed() -> None:
    denied = denial(TREE, "hourly", "eve", ())

    assert denied is not None
    assert denied.message() == (
        'queue "etl" takes applications of groups data; service accounts ci/airflow, spark; '
        'this one was created by user "eve"'
    )
