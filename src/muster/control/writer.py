"""The writes of the outbox as Kubernetes calls, and what their failures mean."""

from __future__ import annotations

import math
from typing import Any

import structlog

from muster.cluster.constraints import PodConstraints, Requirement
from muster.control import gangs
from muster.control.outbox import Gone, Retry
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.events import EventRecorder
from muster.kube.kinds import PODS
from muster.kube.objects import ObjectReference
from muster.kube.resources import GANGS, Gang
from muster.scheduling.decisions import Publish
from muster.scheduling.model import Application, ApplicationKey, GangStatus, Mode, Phase, Pod, PodRef, Reservation, Role
from muster.spark import names

_log = structlog.get_logger("muster.writer")


class GatedPods:
    """Constraints of the pods behind our gate: releasing one narrows the affinity it came with, so that is kept."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], Pod] = {}

    def see(self, pod: Pod) -> None:
        key = (pod.namespace, pod.name)
        if pod.gated and not pod.finished:
            self._pods[key] = pod
        else:
            self._pods.pop(key, None)

    def forget(self, namespace: str, name: str, uid: str) -> None:
        pod = self._pods.get((namespace, name))
        if pod is not None and pod.uid == uid:
            del self._pods[(namespace, name)]

    def get(self, ref: PodRef) -> Pod | None:
        """The gated pod; ``None`` when it is gone, released, or another of its name."""
        pod = self._pods.get((ref.namespace, ref.name))
        return pod if pod is not None and (not ref.uid or ref.uid == pod.uid) else None


class ApiWriter:
    """``outbox.Writer`` on the real API."""

    def __init__(self, client: Client, gated: GatedPods, events: EventRecorder) -> None:
        self._client = client
        self._gated = gated
        self._events = events
        self._versions: dict[ApplicationKey, str] = {}
        """Of every ``Gang`` known to exist, the resourceVersion that this replica saw last; "" when that is in doubt.

        Each write names it, so that what was sent earlier, by this leader or another, and the network held back cannot
        undo what is newer.
        """

    def known(self, key: ApplicationKey, version: str) -> None:
        """A ``Gang`` for ``key`` exists, at this resourceVersion: bring it up to date instead of creating it."""
        self._versions[key] = version

    async def write_gang(self, application: Application, reservation: Reservation | None) -> None:
        spec = gangs.spec_of(application, reservation)
        await self._put_gang(application.key, spec, application.driver_pod)

    async def write_invalid_gang(self, key: ApplicationKey, driver_pod: PodRef) -> None:
        await self._put_gang(key, gangs.spec_of_unknown(key, driver_pod), driver_pod)

    async def write_status(self, key: ApplicationKey, status: GangStatus) -> None:
        namespace, name = key.split("/", 1)
        body: dict[str, Any] = {"status": gangs.status_of(status)}
        try:
            if key in self._versions:
                body["metadata"] = {"resourceVersion": await self._version(key)}
            written = await self._client.patch(GANGS, name, body, namespace, subresource="status")
        except ApiError as error:
            self._doubt(key, error)
            raise _meaning(error) from error
        self._versions[key] = written.metadata.resource_version
        if status.phase is Phase.FINISHED:
            del self._versions[key]  # the last thing there is to say

    async def delete_gang(self, key: ApplicationKey) -> None:
        namespace, name = key.split("/", 1)
        self._versions.pop(key, None)
        try:
            await self._client.delete(GANGS, name, namespace)
        except ApiError as error:
            raise _meaning(error) from error

    async def release(self, pod: PodRef, key: ApplicationKey, node: str, extra: bool) -> None:
        gated = self._gated.get(pod)
        if gated is None:
            raise Gone(f"pod {pod.namespace}/{pod.name} is not gated any more")
        body = release_patch(gated, node, extra)
        try:
            await self._client.patch(PODS, pod.name, body, pod.namespace, patch_type=PatchType.STRATEGIC)
        except ApiError as error:
            # 409 and 422 may say that it is another pod of that name (uid precondition) or released by somebody else,
            # but also that it was just being changed: it is tried again, until the watch tells that it is not gated
            raise _meaning(error) from error

    async def evict(self, pod: PodRef, grace_seconds: float) -> None:
        """A plain delete, as kube-scheduler's preemption does it, and not the Eviction API.

        That one would ask PodDisruptionBudgets, which any tenant may write: one that allows no disruption would keep
        lent room for ever. What may be called back is for the queue's configuration to say.
        """
        try:
            await self._client.delete(
                PODS, pod.name, pod.namespace, uid=pod.uid, grace_period_seconds=math.ceil(grace_seconds)
            )
        except ApiError as error:
            if error.conflict and "UID in precondition" in error.message:
                raise Gone(f"pod {pod.namespace}/{pod.name} is another one now") from error
            raise _meaning(error) from error

    async def publish(self, event: Publish) -> None:
        reference = ObjectReference(
            kind="Pod", namespace=event.pod.namespace, name=event.pod.name, uid=event.pod.uid, api_version="v1"
        )
        try:
            await self._events.publish(reference, event.reason, event.message, warning=event.warning)
        except ApiError as error:
            raise Gone(f"event not written: {error}") from error  # an event is a courtesy: never worth a retry storm

    async def _put_gang(self, key: ApplicationKey, spec: dict[str, Any], owner: PodRef | None) -> None:
        namespace, name = key.split("/", 1)
        try:
            if key not in self._versions:
                try:
                    written = await self._client.create(GANGS, gangs.manifest(namespace, name, spec, owner), namespace)
                except ApiError as error:
                    if not error.already_exists:
                        raise
                    self._versions[key] = ""
                    written = await self._replace_spec(namespace, name, spec, await self._version(key))
            else:
                written = await self._replace_spec(namespace, name, spec, await self._version(key))
        except ApiError as error:
            self._doubt(key, error)
            if error.not_found and key in self._versions:
                del self._versions[key]  # somebody deleted it: the next attempt creates it
                raise Retry(str(error)) from error
            raise _meaning(error) from error
        self._versions[key] = written.metadata.resource_version

    async def _replace_spec(self, namespace: str, name: str, spec: dict[str, Any], version: str) -> Gang:
        """The whole spec at once: merging would keep what an earlier one said and this one does not."""
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/spec/applicationId", "value": spec["applicationId"]},
            {"op": "add", "path": "/spec", "value": spec},
            {"op": "add", "path": "/metadata/resourceVersion", "value": version},
        ]
        return await self._client.patch(GANGS, name, patch, namespace, patch_type=PatchType.JSON)

    def _doubt(self, key: ApplicationKey, error: ApiError) -> None:
        """Somebody else has written, or an own write whose answer was lost: the version is looked up before the next.

        That is only made while this replica leads, and then what it says is right.
        """
        if key in self._versions and (error.conflict or error.transient):
            self._versions[key] = ""

    async def _version(self, key: ApplicationKey) -> str:
        """The version that the next write is for. Raises ``Retry`` when the ``Gang`` is gone."""
        version = self._versions[key]
        if not version:
            namespace, name = key.split("/", 1)
            found = await self._client.list(GANGS, namespace, field_selector=f"metadata.name={name}")
            if not found:
                del self._versions[key]
                raise Retry(f"gang {key} is gone")
            version = self._versions[key] = found[0].metadata.resource_version
        return version


def release_patch(pod: Pod, node: str, extra: bool) -> dict[str, Any]:
    """Strategic merge patch that takes our gate off and, with a ``node``, pins the pod to it.

    The node's name is added to each term of the required affinity, as the API server allows for gated pods
    (it may be tightened, never loosened). ``metadata.uid`` makes it a patch of this very pod.
    """
    patch = ungating_patch(pod.uid)
    if node:
        terms = _pinned(pod.constraints, node)
        patch["spec"]["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        }
        notes = {
            names.APPLICATION_ANNOTATION: pod.application.split("/", 1)[1],
            names.SLOT_ANNOTATION: node,
            names.MODE_ANNOTATION: Mode.PIN.value,
        }
        if pod.role is Role.EXECUTOR and extra:
            notes[names.EXTRA_ANNOTATION] = "true"
        patch["metadata"]["annotations"] = notes
    return patch


def ungating_patch(uid: str) -> dict[str, Any]:
    """Strategic merge patch that takes our gate off this very pod, and nothing else."""
    return {"metadata": {"uid": uid}, "spec": {"schedulingGates": [{"$patch": "delete", "name": names.GANG_GATE}]}}


def _pinned(constraints: PodConstraints, node: str) -> list[dict[str, Any]]:
    field = Requirement("metadata.name", "In", (node,))
    pinned = []
    for expressions, fields in [(t.expressions, t.fields) for t in constraints.terms or ()] or [((), ())]:
        body: dict[str, Any] = {"matchFields": [_requirement(f) for f in dict.fromkeys((*fields, field))]}
        if expressions:
            body["matchExpressions"] = [_requirement(e) for e in expressions]
        pinned.append(body)
    return pinned


def _requirement(requirement: Requirement) -> dict[str, Any]:
    body: dict[str, Any] = {"key": requirement.key, "operator": requirement.operator}
    if requirement.values:
        body["values"] = list(requirement.values)
    return body


def _meaning(error: ApiError) -> Exception:
    """Whether a failed write is worth another attempt."""
    if error.not_found or (error.code == 403 and "being terminated" in error.message):
        return Gone(str(error))
    return Retry(str(error), error.retry_after)
