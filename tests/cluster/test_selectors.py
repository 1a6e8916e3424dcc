"""Node selectors, affinity and taints against the meaning Kubernetes gives them, taken literally.

Source: kubernetes ``component-helpers/scheduling/corev1/nodeaffinity``, ``apimachinery/pkg/labels/selector.go``,
``core/v1 Toleration.ToleratesTaint``.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration, repelling
from muster.cluster.nodes import Node, NodeTable
from muster.cluster.resources import Resources

KEYS = st.sampled_from(["pool", "cores", "gpu"])
VALUES = st.sampled_from(["", "a", "b", "3", "+7", "-5", "007", "9" * 30, "1_0", " 4"])
OPERATORS = st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Like"])
NAMES = st.sampled_from(["n0", "n1", "n2", "n9"])
EFFECTS = st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])


def tuples(strategy: st.SearchStrategy, most: int) -> st.SearchStrategy:
    return st.lists(strategy, max_size=most).map(tuple)


taints = st.builds(Taint, st.sampled_from(["dedicated", "spot"]), EFFECTS, st.sampled_from(["", "spark"]))
tolerations = st.builds(
    Toleration,
    st.sampled_from(["", "dedicated", "spot"]),
    st.sampled_from(["", "Equal", "Exists", "Near"]),
    st.sampled_from(["", "spark"]),
    st.one_of(st.just(""), EFFECTS),
)
requirements = st.builds(Requirement, KEYS, OPERATORS, tuples(VALUES, 2))
fields = st.builds(Requirement, st.sampled_from(["metadata.name", "spec.nodeName"]), OPERATORS, tuples(NAMES, 2))
terms = st.builds(Term, tuples(requirements, 2), st.one_of(st.just(()), tuples(fields, 1)))
constraints = st.builds(
    PodConstraints,
    tuples(st.tuples(KEYS, VALUES), 1),
    st.one_of(st.none(), tuples(terms, 3)),
    tuples(tolerations, 3),
)
nodes = st.lists(
    st.builds(
        Node,
        name=st.just("n"),
        allocatable=st.just(Resources.of(cpu=1)),
        labels=st.dictionaries(KEYS, VALUES),
        taints=tuples(taints, 2),
        ready=st.sampled_from([True, True, False]),
        unschedulable=st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=4,
)


def go_integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or any(character not in "0123456789" for character in digits):
        return None
    return int(text) if -(2**63) <= int(text) <= 2**63 - 1 else None


def meets(requirement: Requirement, labels: dict[str, str]) -> bool:
    """One expression; a requirement Kubernetes would refuse is met by nothing."""
    key, operator, values = requirement.key, requirement.operator, requirement.values
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return len(values) > 0 and (key not in labels or labels[key] not in values)
    if operator == "Exists":
        return not values and key in labels
    if operator == "DoesNotExist":
        return not values and key not in labels
    if operator in ("Gt", "Lt") and len(values) == 1 and key in labels:
        bound, number = go_integer(values[0]), go_integer(labels[key])
        if bound is not None and number is not None:
            return number > bound if operator == "Gt" else number < bound
    return False


def is_valid(requirement: Requirement) -> bool:
    count = len(requirement.values)
    if requirement.operator in ("In", "NotIn"):
        return count > 0
    if requirement.operator in ("Exists", "DoesNotExist"):
        return count == 0
    return requirement.operator in ("Gt", "Lt") and count == 1 and go_integer(requirement.values[0]) is not None


def is_named(field: Requirement, name: str) -> bool:
    if field.key != "metadata.name" or len(field.values) != 1:
        return False
    return {"In": name == field.values[0], "NotIn": name != field.values[0]}.get(field.operator, False)


def matches(asked: PodConstraints, name: str, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in asked.node_selector):
        return False
    if asked.terms is None:
        return True
    for term in asked.terms:
        if not term.expressions and not term.fields:
            continue
        if all(is_valid(e) and meets(e, labels) for e in term.expressions) and all(
            is_named(f, name) for f in term.fields
        ):
            return True
    return False


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect != "" and toleration.effect != taint.effect:
        return False
    if toleration.key != "" and toleration.key != taint.key:
        return False
    if toleration.operator in ("", "Equal"):
        return toleration.value == taint.value
    return toleration.operator == "Exists"


def admits(asked: PodConstraints, node: Node) -> bool:
    for taint in node.taints:
        if taint.effect == "PreferNoSchedule":
            continue
        if not any(tolerates(toleration, taint) for toleration in asked.tolerations):
            return False
    return node.ready and not node.unschedulable


@settings(max_examples=200, deadline=None)
@given(nodes, constraints)
def test_selects_the_nodes_kubernetes_would(described: list[Node], asked: PodConstraints) -> None:
    table = NodeTable()
    for position, node in enumerate(described):
        table.upsert(Node(f"n{position}", node.allocatable, node.labels, node.taints, node.ready, node.unschedulable))

    matching = [matches(asked, f"n{position}", node.labels) for position, node in enumerate(described)]
    assert table.matching(asked).tolist() == matching
    assert table.eligible(asked).tolist() == [
        fits and admits(asked, node) for fits, node in zip(matching, described, strict=True)
    ]


def chosen(requirement: Requirement, **labels: dict[str, str]) -> list[str]:
    table = NodeTable()
    for name, given_labels in labels.items():
        table.upsert(Node(name, Resources.of(cpu=1), given_labels))
    mask = table.eligible(PodConstraints(terms=(Term((requirement,)),)))
    return [name for name, fits in zip(labels, mask.tolist(), strict=True) if fits]


def test_not_in_and_does_not_exist_match_nodes_without_the_label() -> None:
    spark, web, bare = {"pool": "spark"}, {"pool": "web"}, {"zone": "z1"}
    assert chosen(Requirement("pool", "NotIn", ("web",)), spark=spark, web=web, bare=bare) == ["spark", "bare"]
    assert chosen(Requirement("pool", "DoesNotExist"), spark=spark, web=web, bare=bare) == ["bare"]
    assert chosen(Requirement("never-seen", "NotIn", ("x",)), spark=spark) == ["spark"]
    assert chosen(Requirement("never-seen", "Exists"), spark=spark) == []


def test_greater_and_less_compare_integers_not_texts() -> None:
    nodes_by_cores = {"four": {"cores": "4"}, "ten": {"cores": "10"}, "many": {"cores": "many"}, "bare": {}}
    assert chosen(Requirement("cores", "Gt", ("4",)), **nodes_by_cores) == ["ten"]
    assert chosen(Requirement("cores", "Lt", ("10",)), **nodes_by_cores) == ["four"]


@pytest.mark.parametrize("terms", [(), (Term(),), (Term(), Term())])
def test_an_affinity_without_requirements_matches_nothing(terms: tuple[Term, ...]) -> None:
    table = NodeTable()
    table.upsert(Node("n", Resources.of(cpu=1)))
    assert not table.matching(PodConstraints(terms=terms)).any()
    assert table.matching(PodConstraints(terms=(*terms, Term((Requirement("x", "DoesNotExist"),))))).all()


def test_a_node_is_found_by_name_even_when_it_comes_later() -> None:
    table = NodeTable()
    table.upsert(Node("a", Resources.of(cpu=1)))
    only_b = PodConstraints(terms=(Term(fields=(Requirement("metadata.name", "In", ("b",)),)),))
    all_but_b = PodConstraints(terms=(Term(fields=(Requirement("metadata.name", "NotIn", ("b",)),)),))
    assert (table.eligible(only_b).tolist(), table.eligible(all_but_b).tolist()) == ([False], [True])
    table.upsert(Node("b", Resources.of(cpu=1)))
    assert (table.eligible(only_b).tolist(), table.eligible(all_but_b).tolist()) == ([False, True], [True, False])
    table.remove("b")
    table.upsert(Node("c", Resources.of(cpu=1)))
    assert (table.eligible(only_b).tolist(), table.eligible(all_but_b).tolist()) == ([False, False], [True, True])


def test_the_first_taint_that_is_not_tolerated_is_named() -> None:
    soft, spot = Taint("flaky", "PreferNoSchedule"), Taint("spot", "NoExecute", "true")
    assert repelling((soft, spot), ()) == spot
    assert repelling((soft, spot), (Toleration("spot", "Exists"),)) is None
    assert str(spot) == "spot=true:NoExecute"
    assert str(soft) == "flaky:PreferNoSchedule"
