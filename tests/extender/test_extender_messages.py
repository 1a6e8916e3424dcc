"""kube-scheduler's questions are read as Go reads them, and answered in Go's own keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muster.control.extender.messages import BadArgs, admitted, decode_args, refused

POD = json.loads((Path(__file__).parents[1] / "kube" / "data" / "spark-4.3.0-driver-pod.json").read_text())["pod"]


def asked(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_a_question_of_todays_kube_scheduler_is_read() -> None:
    args = decode_args(asked(Pod=POD, Nodes=None, NodeNames=["n1", "n2"]))
    assert args.pod is not None
    assert args.pod.metadata.name == POD["metadata"]["name"]
    assert args.pod.metadata.labels["spark-role"] == "driver"
    assert (args.node_names, args.nodes) == (("n1", "n2"), None)


@pytest.mark.parametrize("keys", [("pod", "nodes", "nodenames"), ("POD", "NODES", "nodeNames")])
def test_keys_are_read_in_any_case(keys: tuple[str, str, str]) -> None:
    pod, nodes, names = keys
    args = decode_args(asked(**{pod: POD, nodes: None, names: ["n1"], "somethingElse": {"a": 1}}))
    assert args.pod is not None
    assert args.pod.metadata.name == POD["metadata"]["name"]
    assert args.node_names == ("n1",)


def test_one_key_alone_may_be_of_another_spelling() -> None:
    args = decode_args(asked(Pod=POD, Nodes=None, nodenames=["n1"]))
    assert args.pod is not None
    assert args.node_names == ("n1",)


def test_unknown_keys_are_ignored() -> None:
    assert decode_args(asked(Pod=POD, Nodes=None, NodeNames=["n1"], Extra=[1])).node_names == ("n1",)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"null", b'{"Pod":null}', b'{"Pod":null,"Nodes":null,"NodeNames":null}', b'{"pod":null,"nodes":{}}'],
)
def test_nothing_usable_is_still_an_answer(body: bytes) -> None:
    args = decode_args(body)
    assert (args.pod, args.node_names) == (None, ())
    assert json.loads(refused(args.node_names, "no pod"))["FailedNodes"] == {}


def test_node_objects_serve_where_names_are_absent_and_come_back() -> None:
    node = {"metadata": {"name": "n2", "labels": {"a": "b"}}, "spec": {}, "status": {}}
    args = decode_args(asked(Pod=POD, Nodes={"items": [{"metadata": {"name": "n1"}}, node]}, NodeNames=None))
    assert args.node_names == ("n1", "n2")
    answer = json.loads(admitted("n2", args))
    assert answer["Nodes"]["items"] == [node]
    assert answer["NodeNames"] == ["n2"]


def test_names_count_where_both_are_given() -> None:
    args = decode_args(asked(Pod=POD, Nodes={"items": [{"metadata": {"name": "n1"}}]}, NodeNames=[]))
    assert (args.node_names, args.nodes) == ((), None)


def test_nulls_within_the_pod_are_absent_values() -> None:
    pod = {"metadata": {"name": "p", "labels": None, "creationTimestamp": None}, "spec": {"containers": [None]}}
    args = decode_args(asked(pod=pod, nodeNames=["n1", None]))
    assert args.pod is not None
    assert args.pod.metadata.labels == {}
    assert args.node_names == ("n1",)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'"Pod"',
        b'{"Pod":{"metadata":[]}}',
        b'{"Pod":{},"NodeNames":[1]}',
        b'{"Pod":{},"NodeNames":"n1"}',
        b'{"Pod":{},"Nodes":{"items":[{"spec":{}}]}}',
        b'{"Pod":{},"Nodes":[]}',
        b'{"Pod":{},"NodeNames":["n1"]',
        b'{"Pod":{"metadata":{"name":"\xff"}}}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:40],
)
def test_what_is_no_question_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(BadArgs, match="expected ExtenderArgs of kube-scheduler: "):
        decode_args(body)


def test_success_has_the_exact_keys_in_order() -> None:
    args = decode_args(asked(Pod=POD, Nodes=None, NodeNames=["node1"]))
    assert admitted("node1", args) == (
        b'{"Nodes":null,"NodeNames":["node1"],"FailedNodes":null,"FailedAndUnresolvableNodes":null,"Error":""}\n'
    )


def test_failure_gives_each_node_the_message_unescaped() -> None:
    assert refused(("node1", "node2"), "min < max & more") == (
        b'{"Nodes":null,"NodeNames":null,'
        b'"FailedNodes":{"node1":"min < max & more","node2":"min < max & more"},'
        b'"FailedAndUnresolvableNodes":null,"Error":""}\n'
    )


@pytest.mark.parametrize("name", ['quoted"name', "back\\slash", "line\nend", "ünïcode", "<html>"])
def test_names_that_no_node_can_have_are_escaped_all_the_same(name: str) -> None:
    answer = json.loads(refused(("node1", name), 'said "no"'))

    assert answer["FailedNodes"] == {"node1": 'said "no"', name: 'said "no"'}


def test_names_that_need_escapes_come_back_as_they_were() -> None:
    names = ('a","b', 'quote"', "back\\slash", "tab\t", "größer", '\\","')
    answer = json.loads(refused(names, 'no "room"'))
    assert answer["FailedNodes"] == dict.fromkeys(names, 'no "room"')
