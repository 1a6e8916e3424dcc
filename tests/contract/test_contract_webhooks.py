"""Mutating webhooks: who is asked, with what, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from muster.kube.certificates import make_authority, make_serving

from .kubernetes_api import PATIENCE, Answer, Api, pod

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
Review = dict[str, Any]
Reply = Callable[[Review], dict[str, Any]]


def allow(review: Review) -> dict[str, Any]:
    return {"allowed": True}


def patching(*operations: dict[str, Any]) -> Reply:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda review: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def annotating(key: str, value: str = "yes") -> Reply:
    def reply(review: Review) -> dict[str, Any]:
        annotations = {**(review["object"]["metadata"].get("annotations") or {}), key: value}
        operation = {"op": "add", "path": "/metadata/annotations", "value": annotations}
        return patching(operation)(review)

    return reply


class Hooks:
    """A TLS server whose paths are webhooks, and the configurations that point to them."""

    def __init__(self, api: Api, port: int, authority: bytes) -> None:
        self.api = api
        self.seen: list[Review] = []
        self.replies: dict[str, Reply] = {}
        self.bundle = base64.b64encode(authority).decode()
        self.port = port
        self.configurations: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        review = (await request.json())["request"]
        path = request.path.strip("/")
        # a controller puts kube-root-ca.crt into every new namespace, sooner or later
        others = review["name"].startswith("probe") or review["name"] == "kube-root-ca.crt"
        if review["namespace"] == self.api.namespace and not others:
            self.seen.append({**review, "path": path})
        response = {"uid": review["uid"], **self.replies[path](review)}
        if response.pop("slow", None):
            await asyncio.sleep(3)
        if response.pop("broken", None):
            return web.Response(status=500)
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})

    async def register(self, path: str, reply: Reply, prefix: str = "m", **webhook: Any) -> None:
        """Adds a webhook for new config maps and pods of the test's namespace, and waits until it is asked."""
        self.replies[path] = reply
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps", "pods"]}
        full = {
            "name": f"{path}.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": f"https://127.0.0.1:{self.port}/{path}", "caBundle": self.bundle},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.api.namespace}},
            "rules": [rule],
            **webhook,
        }
        name = f"{prefix}-{path}-{secrets.token_hex(4)}"
        created = await self.api.post(CONFIGURATIONS, {"metadata": {"name": name}, "webhooks": [full]})
        assert created.code == 201, created.body
        self.configurations.append(name)

    async def ready(self) -> None:
        """Real API servers take a moment to see a new configuration."""
        replies = dict(self.replies)
        marker = self.api.path("configmaps")
        hit: list[str] = []
        for path in replies:

            def reply(review: Review, path: str = path) -> dict[str, Any]:
                hit.append(path)
                return {"allowed": True}

            self.replies[path] = reply
        async with asyncio.timeout(PATIENCE):
            while set(hit) < set(replies):
                probe = {"metadata": {"name": f"probe-{secrets.token_hex(4)}", "labels": {"hook": "yes"}}}
                await self.api.post(marker, probe)
        self.replies = replies


@pytest.fixture
async def hooks(api: Api, tmp_path: Path) -> AsyncIterator[Hooks]:
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=1))
    serving = make_serving(authority, ["127.0.0.1"], now, timedelta(days=1))
    (tmp_path / "tls.crt").write_bytes(serving.certificate)
    (tmp_path / "tls.key").write_bytes(serving.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    application = web.Application()
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    served = Hooks(api, 0, authority.certificate)
    application.router.add_post("/{path}", served.serve)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    served.port = runner.addresses[0][1]
    yield served
    for name in served.configurations:
        await api.delete(f"{CONFIGURATIONS}/{name}")
    await runner.cleanup()


async def _config(api: Api, name: str = "a", **params: Any) -> Answer:
    return await api.post(api.path("configmaps"), {"metadata": {"name": name, "labels": {"hook": "yes"}}}, **params)


async def test_a_webhook_changes_a_new_object_by_json_patch(hooks: Hooks) -> None:
    await hooks.register("one", annotating("example.com/seen"))
    await hooks.ready()
    created = await _config(hooks.api)
    assert created.code == 201, created.body
    assert created.body["metadata"]["annotations"] == {"example.com/seen": "yes"}


async def test_the_review_says_what_is_asked(hooks: Hooks) -> None:
    await hooks.register("one", allow)
    await hooks.ready()
    api = hooks.api
    created = await api.create("pods", pod("p", {"restartPolicy": "Never"}, labels={"hook": "yes"}))
    (review,) = hooks.seen
    assert review["operation"] == "CREATE"
    assert review["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert review["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert (review["namespace"], review["name"], review["dryRun"]) == (api.namespace, "p", False)
    assert review["userInfo"]["username"]
    assert "system:authenticated" in review["userInfo"]["groups"]
    assert review.get("oldObject") is None
    asked = review["object"]
    # Webhooks see the defaults, but not yet what is given when the object is stored.
    assert asked["spec"]["schedulerName"] == "default-scheduler"
    assert asked["spec"]["serviceAccountName"] == "default"
    assert "uid" not in asked["metadata"]
    assert created.body["metadata"]["uid"]
    assert review["uid"] != created.body["metadata"]["uid"]


async def test_a_webhook_may_gate_a_pod_or_give_it_its_node(hooks: Hooks) -> None:
    await hooks.register("one", patching({"op": "add", "path": "/spec/schedulingGates", "value": [{"name": "x.io/g"}]}))
    await hooks.ready()
    gated = await hooks.api.create("pods", pod("p", labels={"hook": "yes"}))
    assert gated.body["spec"]["schedulingGates"] == [{"name": "x.io/g"}]
    assert gated.body["status"]["conditions"][0]["reason"] == "SchedulingGated"
    hooks.replies["one"] = patching({"op": "add", "path": "/spec/nodeName", "value": "n1"})
    bound = await hooks.api.create("pods", pod("q", labels={"hook": "yes"}))
    assert bound.body["spec"]["nodeName"] == "n1"


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ({"message": "not today", "code": 403}, 403, "denied the request: not today"),
        ({"message": "too many", "code": 429, "reason": "TooManyRequests"}, 429, "denied the request: too many"),
        ({"reason": "BecauseISaySo"}, 400, "denied the request: BecauseISaySo"),
        (None, 400, "denied the request without explanation"),
    ],
)
async def test_a_refusal_reaches_the_client_with_its_reason(
    hooks: Hooks, status: dict[str, Any] | None, code: int, said: str
) -> None:
    await hooks.register("one", lambda review: {"allowed": False, **({"status": status} if status else {})})
    await hooks.ready()
    answer = await _config(hooks.api)
    assert (answer.code, answer.reason) == (code, (status or {}).get("reason", ""))
    assert answer.body["message"] == f'admission webhook "one.example.com" {said}'
    assert (await hooks.api.get(hooks.api.path("configmaps", "a"))).code == 404


async def test_objects_outside_the_object_selector_are_not_asked_about(hooks: Hooks) -> None:
    await hooks.register("one", annotating("example.com/seen"), objectSelector={"matchLabels": {"hook": "yes"}})
    await hooks.ready()
    other = await hooks.api.config("b", labels={"hook": "no"})
    assert "annotations" not in other.body["metadata"]
    assert (await _config(hooks.api)).body["metadata"]["annotations"] == {"example.com/seen": "yes"}


async def test_operations_and_resources_outside_the_rules_are_not_asked_about(hooks: Hooks) -> None:
    await hooks.register("one", allow)
    await hooks.ready()
    api = hooks.api
    await api.create("secrets", {"metadata": {"name": "s"}})
    await _config(api)
    await api.patch(api.path("configmaps", "a"), {"data": {"x": "1"}})
    await api.delete(api.path("configmaps", "a"))
    assert [(review["operation"], review["name"]) for review in hooks.seen] == [("CREATE", "a")]


async def test_updates_and_deletions_carry_the_old_object(hooks: Hooks) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["*"], "operations": ["*"], "resources": ["configmaps"]}
    await hooks.register("one", allow, rules=[rule])
    await hooks.ready()
    api = hooks.api
    await _config(api)
    await api.patch(api.path("configmaps", "a"), {"data": {"x": "1"}})
    await api.delete(api.path("configmaps", "a"))
    created, updated, deleted = hooks.seen
    assert [review["operation"] for review in hooks.seen] == ["CREATE", "UPDATE", "DELETE"]
    assert created.get("oldObject") is None
    assert "data" not in updated["oldObject"]
    assert updated["object"]["data"] == {"x": "1"}
    assert deleted.get("object") is None
    assert deleted["oldObject"]["data"] == {"x": "1"}


async def test_webhooks_are_asked_in_the_order_of_their_configurations_names(hooks: Hooks) -> None:
    await hooks.register("late", annotating("order", "late"), prefix="z")
    await hooks.register("early", annotating("order", "early"), prefix="a")
    await hooks.ready()
    created = await _config(hooks.api)
    assert [review["path"] for review in hooks.seen] == ["early", "late"]
    assert created.body["metadata"]["annotations"] == {"order": "late"}


async def test_a_webhook_is_asked_again_when_a_later_one_changed_the_object(hooks: Hooks) -> None:
    await hooks.register("first", allow, prefix="a", reinvocationPolicy="IfNeeded")
    await hooks.register("second", annotating("example.com/seen"), prefix="b")
    await hooks.ready()
    await _config(hooks.api)
    assert [review["path"] for review in hooks.seen] == ["first", "second", "first"]
    assert hooks.seen[2]["object"]["metadata"]["annotations"] == {"example.com/seen": "yes"}


@pytest.mark.parametrize(
    "failure",
    [
        {"broken": True, "allowed": True},
        {"slow": True, "allowed": True},
        {"allowed": True, "uid": "another"},
        {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(b"[{]").decode()},
        {
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(b'[{"op":"remove","path":"/no/such/path"}]').decode(),
        },
    ],
    ids=["status 500", "timeout", "wrong uid", "patch is no JSON", "patch does not apply"],
)
async def test_a_webhook_that_fails_is_ignored_or_fails_the_request_as_its_policy_says(
    hooks: Hooks, failure: dict[str, Any]
) -> None:
    await hooks.register("one", lambda review: dict(failure), failurePolicy="Ignore", timeoutSeconds=1)
    await hooks.ready()
    patch_does_not_apply = "remove" in str(base64.b64decode(failure.get("patch", "")))
    answer = await _config(hooks.api)
    if not patch_does_not_apply:
        assert answer.code == 201, answer.body
    await hooks.api.delete(f"{CONFIGURATIONS}/{hooks.configurations.pop()}")
    await hooks.register("one", lambda review: dict(failure), failurePolicy="Fail", timeoutSeconds=1)
    await hooks.ready()
    answer = await _config(hooks.api, "b")
    assert answer.code == 500
    assert answer.reason == "InternalError"


async def test_a_webhook_that_nobody_serves_fails_closed_or_open(hooks: Hooks) -> None:
    config = {"url": "https://127.0.0.1:1/nowhere", "caBundle": hooks.bundle}
    selector = {"matchLabels": {"hook": "closed"}}
    hooks.replies.clear()
    await hooks.register("open", allow, clientConfig=config, failurePolicy="Ignore")
    await hooks.register("closed", allow, clientConfig=config, failurePolicy="Fail", objectSelector=selector)
    async with asyncio.timeout(PATIENCE):
        while True:
            probe = {"metadata": {"generateName": "probe-", "labels": {"hook": "closed"}}}
            closed = await hooks.api.post(hooks.api.path("configmaps"), probe)
            if closed.code != 201:
                break
    assert closed.code == 500
    assert 'failed calling webhook "closed.example.com"' in closed.body["message"]
    assert (await _config(hooks.api)).code == 201


async def test_a_certificate_that_the_bundle_does_not_know_is_a_failure(hooks: Hooks) -> None:
    stranger = make_authority(datetime.now(UTC), timedelta(days=1)).certificate
    url = f"https://127.0.0.1:{hooks.port}/one"
    config = {"url": url, "caBundle": base64.b64encode(stranger).decode()}
    await hooks.register("one", allow, clientConfig=config, failurePolicy="Fail")
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await hooks.api.post(hooks.api.path("configmaps"), {"metadata": {"generateName": "x-"}})
            if answer.code != 201:
                break
    assert answer.code == 500
    assert "certificate" in answer.body["message"]


async def test_a_dry_run_is_said_to_the_webhook(hooks: Hooks) -> None:
    await hooks.register("one", annotating("example.com/seen"))
    await hooks.ready()
    answer = await _config(hooks.api, dryRun="All")
    assert answer.body["metadata"]["annotations"] == {"example.com/seen": "yes"}
    assert [review["dryRun"] for review in hooks.seen] == [True]


async def test_a_configuration_gets_its_defaults(hooks: Hooks) -> None:
    await hooks.register("one", allow)
    stored = (await hooks.api.get(f"{CONFIGURATIONS}/{hooks.configurations[0]}")).body["webhooks"][0]
    assert stored["failurePolicy"] == "Fail"
    assert stored["matchPolicy"] == "Equivalent"
    assert stored["reinvocationPolicy"] == "Never"
    assert stored["timeoutSeconds"] == 10
    assert stored["objectSelector"] == {}
    assert stored["rules"][0]["scope"] == "*"


@pytest.mark.parametrize(
    "change", [{"timeoutSeconds": 31}, {"sideEffects": "Some"}, {"admissionReviewVersions": []}, {"name": "short"}]
)
async def test_a_configuration_that_makes_no_sense_answers_422(hooks: Hooks, change: dict[str, Any]) -> None:
    webhook = {
        "name": "one.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
        **change,
    }
    answer = await hooks.api.post(CONFIGURATIONS, {"metadata": {"name": secrets.token_hex(4)}, "webhooks": [webhook]})
    assert (answer.code, answer.reason) == (422, "Invalid")
