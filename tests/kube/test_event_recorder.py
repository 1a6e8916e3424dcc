"""Events reach people, and a storm of them does not reach the API server."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from muster.kube.errors import ApiError
from muster.kube.events import EventRecorder
from muster.kube.objects import ObjectReference

DRIVER = ObjectReference(kind="Pod", namespace="a", name="driver", uid="u1", api_version="v1")
PATH = "/api/v1/namespaces/a/events"


@pytest.fixture
def recorder(client) -> EventRecorder:
    return EventRecorder(client, "muster", "muster-0")


async def test_an_event_is_one_that_kubernetes_accepts_and_kubectl_describe_finds(api, recorder):
    api.on("POST", PATH, api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201))
    await recorder.publish(DRIVER, "InvalidSize", "spark.executor.instances is no number", warning=True)
    body = api.asked[0].body
    schemas = json.loads((Path(__file__).parent / "data" / "kubernetes-1.30-schemas.json").read_text())
    jsonschema.Draft202012Validator({**schemas, "$ref": "#/$defs/io.k8s.api.core.v1.Event"}).validate(body)
    assert body["involvedObject"] == {
        "kind": "Pod",
        "namespace": "a",
        "name": "driver",
        "uid": "u1",
        "apiVersion": "v1",
    }
    assert (body["type"], body["reason"], body["count"]) == ("Warning", "InvalidSize", 1)
    assert body["firstTimestamp"] == body["lastTimestamp"] == "2027-01-15T08:00:00Z"
    assert body["metadata"]["name"].startswith("driver.")


async def test_a_repetition_raises_the_count_and_not_more_often_than_every_half_minute(api, recorder, clock):
    api.on("POST", PATH, api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201))
    await recorder.publish(DRIVER, "Waiting", "no room")
    name = api.asked[0].body["metadata"]["name"]
    for _ in range(9):
        await recorder.publish(DRIVER, "Waiting", "no room")
    assert len(api.asked) == 1
    api.on("PATCH", f"{PATH}/{name}", api.json({"metadata": {"name": name}, "involvedObject": {}}))
    clock.now += 30
    await recorder.publish(DRIVER, "Waiting", "no room")
    assert api.asked[1].body == {"count": 11, "lastTimestamp": "2027-01-15T08:00:30Z"}
    assert recorder.folded == 9


async def test_an_event_not_repeated_for_ten_minutes_is_a_new_one(api, recorder, clock):
    api.on("POST", PATH, *[api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201)] * 2)
    await recorder.publish(DRIVER, "Waiting", "no room")
    clock.now += 600
    await recorder.publish(DRIVER, "Waiting", "no room")
    assert [asked.body["count"] for asked in api.asked] == [1, 1]
    assert api.asked[0].body["metadata"]["name"] != api.asked[1].body["metadata"]["name"]


async def test_a_repetition_of_an_event_that_the_server_has_forgotten_is_written_anew(api, recorder, clock):
    api.on("POST", PATH, *[api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201)] * 2)
    await recorder.publish(DRIVER, "Waiting", "no room")
    name = api.asked[0].body["metadata"]["name"]
    api.on("PATCH", f"{PATH}/{name}", api.status(404, "NotFound"))
    clock.now += 60
    await recorder.publish(DRIVER, "Waiting", "no room")
    assert api.asked[2].body["count"] == 2


async def test_one_object_may_say_25_things_at_once_and_then_one_in_five_minutes(api, recorder, clock):
    api.on("POST", PATH, *[api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201)] * 26)
    for number in range(40):
        await recorder.publish(DRIVER, "Chatter", f"message {number}")
    assert (len(api.asked), recorder.dropped) == (25, 15)
    clock.now += 300
    for number in range(40, 45):
        await recorder.publish(DRIVER, "Chatter", f"message {number}")
    assert len(api.asked) == 26


async def test_all_objects_together_share_a_rate(api, client, clock):
    recorder = EventRecorder(client, "muster", "muster-0", per_second=1.0, burst=3.0)
    api.on("POST", PATH, *[api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201)] * 5)
    for number in range(10):
        await recorder.publish(ObjectReference(kind="Pod", namespace="a", name=f"p{number}"), "Hello", "")
    assert len(api.asked) == 3
    clock.now += 2
    for number in range(10):
        await recorder.publish(ObjectReference(kind="Pod", namespace="a", name=f"q{number}"), "Hello", "")
    assert len(api.asked) == 5


async def test_an_event_whose_answer_was_lost_is_not_written_twice(api, recorder):
    api.on("POST", PATH, api.hang_up(), api.status(409, "AlreadyExists"))
    await recorder.publish(DRIVER, "Waiting", "no room")
    names = {asked.body["metadata"]["name"] for asked in api.asked}
    assert len(api.asked) == 2
    assert len(names) == 1


async def test_a_message_too_long_for_the_api_is_cut_between_characters(api, recorder):
    api.on("POST", PATH, api.json({"metadata": {"name": "x"}, "involvedObject": {}}, 201))
    await recorder.publish(DRIVER, "Long", "ü" * 2000)
    message = api.asked[0].body["message"]
    assert len(message.encode()) <= 1024
    assert message == "ü" * 510 + "…"


async def test_a_refusal_is_told_to_the_caller(api, recorder):
    api.on("POST", PATH, api.status(403, "Forbidden"))
    with pytest.raises(ApiError):
        await recorder.publish(DRIVER, "Waiting", "no room")
