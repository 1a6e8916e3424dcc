"""Queues as people write them, and what they are told when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from muster.control.queue_documents import QueueDocumentError, read_queues
from muster.control.queues import check_together, config_of
from muster.kube.resources import PreemptionPolicy, QueuePolicy
from muster.queueing.rules import Rule
from muster.queueing.tree import QueueTree

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples" / "queues.yaml"

FILE = """
queues:
  - name: company
    policy: fair
    max: {cpu: "2000", memory: 8Ti}
  - name: etl
    parent: company
    nodePools: [batch]
    policy: priority
    guaranteed: {cpu: 600, nvidia.com/gpu: 0}
    max: {cpu: 1500, nvidia.com/gpu: 0}
    weight: 3
    limits:
      - users: ["*"]
        max: {cpu: 100500m}
        maxApplications: 5
    maxApplications: 50
    driverShare: 20
    preemption: never
    minRuntimeSeconds: 60
    submitters: {groups: [data-platform], serviceAccounts: [etl/spark]}
rules:
  - {namespace: etl-*, queue: etl}
  - {user: alice, label: {team: ml}, serviceAccount: spark, group: ml, queue: "users-{user}"}
"""


def test_every_field_of_a_file_arrives_in_base_units() -> None:
    documents = read_queues(FILE, "queues.yaml")
    assert list(documents.queues) == ["company", "etl"]
    etl = config_of("etl", documents.queues["etl"])
    assert (etl.parent, etl.node_pools, etl.weight, etl.max_applications) == ("company", ("batch",), 3, 50)
    assert (etl.policy, etl.preemption, etl.min_runtime, etl.driver_share) == ("priority", "never", 60.0, 20)
    assert etl.guaranteed.amounts == (("cpu", 600_000),)
    assert etl.max.amounts == (("cpu", 1_500_000), ("nvidia.com/gpu", 0)), "none of it is not the same as no limit"
    [limit] = etl.limits
    assert (limit.users, limit.max.amounts, limit.max_applications) == (("*",), (("cpu", 100_500),), 5)
    assert etl.submitters.groups == ("data-platform",)
    assert etl.submitters.service_accounts == ("etl/spark",)


def test_a_file_may_have_rules_that_send_applications_to_queues() -> None:
    first, second = read_queues(FILE, "queues.yaml").rules
    assert first == Rule(queue="etl", namespace="etl-*")
    assert second == Rule("users-{user}", "", "spark", "alice", "ml", {"team": "ml"})


def test_what_is_not_said_has_the_defaults_of_the_resource() -> None:
    plain = read_queues("queues: [{name: plain}]", "queues.yaml").queues["plain"]
    assert (plain.policy, plain.preemption, plain.weight) == (QueuePolicy.FIFO, PreemptionPolicy.EXTRAS, 1)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "queues:\nrules:\n", "queues: []"])
def test_an_empty_file_is_no_mistake(text: str) -> None:
    assert read_queues(text, "queues.yaml").queues == {}


def test_the_examples_make_a_sound_tree() -> None:
    assert check_together({"examples": EXAMPLES.read_text()}) == 4
    documents = read_queues(EXAMPLES.read_text(), "examples")
    tree = QueueTree(config_of(name, spec) for name, spec in documents.queues.items())
    assert set(tree.leaves) == {"analytics", "etl", "default"}


def test_manifests_are_read_as_kubectl_prints_them() -> None:
    manifests = list(yaml.safe_load_all(EXAMPLES.read_text()))
    as_list = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": manifests, "metadata": {}})
    assert read_queues(as_list, "-").queues == read_queues(EXAMPLES.read_text(), "-").queues


def problems(text: str) -> list[str]:
    with pytest.raises(QueueDocumentError) as caught:
        check_together({"queues.yaml": text})
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queues: [{name: a, policy: FIFO}]", "queue a: policy = 'FIFO': allowed are fifo, fair, priority"),
        ("queues: [{name: a, weight: 0}]", "queue a: weight = 0: expected at least 1"),
        ("queues: [{name: a, weight: '3'}]", "queue a: weight = '3': expected a whole number"),
        ("queues: [{name: a, driverShare: 101}]", "queue a: driverShare = 101: expected at most 100"),
        (
            "queues: [{name: a, max: {cpu: lots}}]",
            "queue a: max.cpu = 'lots': expected a quantity, a whole number or a text such as '500m', '4' or '16Gi'",
        ),
        (
            "queues: [{name: a, max: {cpu: 0.5}}]",
            "queue a: max.cpu = 0.5: expected a quantity, a whole number or a text such as '500m', '4' or '16Gi'",
        ),
        (
            "queues: [{name: a, limits: [{users: alice}]}]",
            "queue a: limits[0].users = 'alice': expected a list",
        ),
        (
            "queues: [{name: a, limits: [{max: {cpu: 1}}]}]",
            "queue a: limits[0] = {'max': {'cpu': 1}}: must name users or groups",
        ),
        (
            "queues: [{name: a, submitters: {user: [b]}}]",
            "queue a: submitters.user = ['b']: unknown key; allowed here: groups, serviceAccounts, users",
        ),
        ("queues: [{policy: fifo}]", "queues[0]: name: is missing"),
        (
            "queues: [{name: Team A}]",
            "queue Team A: name = 'Team A': expected a name of lower-case letters, digits, '-' and '.', such as team-a",
        ),
        ("queues: [{name: a}, {name: a}]", "queue a: is there twice"),
        ("rules: [{namespace: b}]", "rule 1: queue: is missing"),
        ("rules: [{queue: a}, {queue: a, labels: {}}]", "rule 2: labels = {}: unknown key; allowed here: group, "),
        ("rules: [{queue: 'a-{team}'}]", 'rule 1: queue: "{team}" is unknown; there are "{namespace}", "{user}"'),
        ("queue: []", "queue = []: unknown key; allowed here: queues, rules"),
        ("[]", "expected the keys queues and rules, found []"),
        ("queues: [", "is no YAML: "),
        ("queues:\n- name: a\n  weight: 1\n  weight: 2\n", "is no YAML: key weight is there twice (line 4, column 3)"),
        ("queues: [{name: a, parent: b}]", 'queue a: parent: there is no queue "b"; there are "default" and ""'),
        (
            "queues: [{name: a, guaranteed: {cpu: 2}, max: {cpu: 1500m}}]",
            "queue a: guaranteed: cpu: 2 is more than max, which is 1500m",
        ),
        ("queues: [{name: a, max: {cpu: 1e99}}]", "queue a: max: '1e99' is not a usable quantity: cpu: larger than "),
        (
            "{apiVersion: muster.dev/v1alpha1, kind: Queue, metadata: {name: a}, spec: {weight: -1}}",
            "queue a: weight = -1: expected at least 1",
        ),
        (
            "{apiVersion: muster.dev/v1alpha1, kind: Queue, metadata: {name: a}}",
            "queue a: spec: is missing",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}",
            "document 1: expected muster.dev/v1alpha1 Queue, found v1 ConfigMap",
        ),
    ],
)
def test_a_mistake_is_told_with_queue_field_value_and_what_is_allowed(text: str, problem: str) -> None:
    [told] = problems(text)
    assert told.startswith(f"queues.yaml: {problem}")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """
queues:
  - {name: b, weight: 0, policy: lifo}
  - {name: a, color: red}
"""
    assert [one.split("=")[0] for one in problems(text)] == [
        "queues.yaml: queue b: policy ",
        "queues.yaml: queue b: weight ",
        "queues.yaml: queue a: color ",
    ]


def test_queues_below_a_bad_one_are_not_blamed_for_it() -> None:
    text = """
queues:
  - {name: top, guaranteed: {cpu: 2}, max: {cpu: 1}}
  - {name: middle, parent: top}
  - {name: leaf, parent: middle}
  - {name: other, parent: nowhere}
"""
    assert [one.split(": ")[1] for one in problems(text)] == ["queue other", "queue top"]


def test_a_huge_value_is_not_repeated_in_full() -> None:
    [told] = problems(f"queues: [{{name: a, policy: {'x' * 100_000}}}]")
    assert len(told) < 250


def test_files_that_belong_together_may_name_each_others_queues() -> None:
    base = "queues: [{name: company, max: {cpu: 10}}]"
    team = "queues: [{name: team, parent: company}]"
    assert check_together({"base.yaml": base, "team.yaml": team}) == 2
    with pytest.raises(QueueDocumentError) as caught:
        check_together({"base.yaml": base, "again.yaml": base})
    assert caught.value.problems == ("again.yaml: queue company: is in base.yaml too",)
