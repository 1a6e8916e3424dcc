"""The mutating admission webhook: drivers are gated, executors are told their node. Pure but for the HTTP handler.

A Spark pod is never rejected: from Spark 4.2 on a refused executor counts as a failure and kills the application.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import structlog
from aiohttp import web

from muster.control.facts import is_gated, is_ours, pod_from, role_of
from muster.control.identity import identity_notes
from muster.control.metrics import Metrics
from muster.control.pending_executors import limit_pending
from muster.kube import objects as k
from muster.scheduling.model import Mode, Placement, Pod, Role
from muster.spark import names

_log = structlog.get_logger("muster.admission")

MAX_REVIEW_BYTES = 4 * 2**20
"""A pod may have 1.5 MiB in etcd; a review carries it once on CREATE."""

_JSON = {"Content-Type": "application/json"}

JsonPatch = list[dict[str, Any]]
PodRequest = k.AdmissionRequest[k.Pod]
_decode_review = msgspec.json.Decoder(k.AdmissionReview[k.Pod]).decode
_encode = msgspec.json.Encoder().encode


class BadReview(ValueError):
    """What was posted is no admission review of a pod."""


class Admission:
    """Answers reviews. ``place`` is asked for the node of an executor; it must be quick and must not fail.

    ``trusted`` users may create drivers on behalf of others (``identity``); drivers have at most ``max_pending``
    executors pending unless they say otherwise (``pending_executors``).
    """

    def __init__(
        self,
        place: Callable[[Pod], Placement],
        scheduler_names: Collection[str],
        metrics: Metrics,
        trusted: Collection[str] = (),
        max_pending: int = 0,
    ) -> None:
        self._place = place
        self._scheduler_names = scheduler_names
        self._metrics = metrics
        self._trusted = trusted
        self._max_pending = max_pending

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """``POST /mutate``."""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            self._metrics.bad_reviews.inc()
            return _refuse(f"the review is larger than {MAX_REVIEW_BYTES} bytes")
        try:
            answer = self.review(body)
        except BadReview as error:
            self._metrics.bad_reviews.inc()
            return _refuse(str(error))
        return web.Response(body=answer, headers=_JSON)

    def review(self, body: bytes) -> bytes:
        """The answer to one ``AdmissionReview`` (admission.k8s.io/v1). Raises ``BadReview``."""
        begun = time.perf_counter()
        request, pod = decode_review(body)
        role = role_of(pod)
        answer, patch = "untouched", None
        if role is Role.DRIVER and self._is_new(request, pod):
            # also on one that comes with a gate or a node: nobody says himself who he is
            patch = _annotate(pod, identity_notes(request.user_info, pod.metadata.annotations, self._trusted))
            if self._concerns(request, pod):
                limit = limit_pending(body, pod.metadata.annotations, self._max_pending)
                answer, patch = "gate", [*patch, *limit, _gate(pod)]
        elif self._concerns(request, pod) and not request.dry_run:  # which must take no slot
            placement = self._place(pod_from(pod, request.namespace, self._scheduler_names))
            answer, patch = placement.mode.value, place_executor(pod, placement)
        self._metrics.reviewed(role, answer, time.perf_counter() - begun)
        response = k.AdmissionResponse(
            uid=request.uid,
            allowed=True,
            patch=_encode(patch) if patch else None,
            patch_type="JSONPatch" if patch else None,
        )
        return _encode(k.AdmissionAnswer(response))

    def _concerns(self, request: PodRequest, pod: k.Pod) -> bool:
        """A pod being created, ours, without a node (of its maker's choice or from us) and without an answer of ours.

        A review is repeated when other admission plugins change a pod after us; kube-apiserver itself does so with
        every pod that has a node (topology labels, KEP-4742). The first answer stands, whichever replica is asked then:
        one that does not lead would hold an executor that is bound, and a gated pod with a node is refused.
        """
        return self._is_new(request, pod) and not is_gated(pod) and not pod.spec.node_name and not _is_pinned(pod)

    def _is_new(self, request: PodRequest, pod: k.Pod) -> bool:
        """A pod of ours that is being created."""
        return (
            request.operation == "CREATE"
            and request.resource.resource == "pods"
            and not request.sub_resource
            and is_ours(pod, self._scheduler_names)
        )


def decode_review(body: bytes) -> tuple[PodRequest, k.Pod]:
    """The request and the pod in it. Raises ``BadReview`` that says what is wrong."""
    try:
        review = _decode_review(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadReview(f"expected an AdmissionReview of admission.k8s.io/v1 with a pod: {error}") from None
    if review.kind != "AdmissionReview" or review.api_version != "admission.k8s.io/v1":
        raise BadReview(
            "expected an AdmissionReview of admission.k8s.io/v1, "
            f"found kind {review.kind[:60]!r} of {review.api_version[:60]!r}"
        )
    return review.request, review.request.object or k.Pod()


def place_executor(pod: k.Pod, placement: Placement) -> JsonPatch:
    """Bind, pin or hold an executor, and write on the pod which slot it took."""
    application = pod.metadata.labels.get(names.SPARK_APP_SELECTOR_LABEL, "")
    notes = {names.APPLICATION_ANNOTATION: application, names.MODE_ANNOTATION: placement.mode.value}
    if placement.mode is Mode.HOLD:
        return [*_annotate(pod, notes), _gate(pod)]
    notes[names.SLOT_ANNOTATION] = placement.node
    if placement.extra:
        notes[names.EXTRA_ANNOTATION] = "true"
    if placement.mode is Mode.BIND:
        return [*_annotate(pod, notes), {"op": "add", "path": "/spec/nodeName", "value": placement.node}]
    return [*_annotate(pod, notes), *_pin(pod.spec.affinity, placement.node)]


def pinned_terms(terms: Collection[k.NodeSelectorTerm], node: str) -> list[dict[str, Any]]:
    """``nodeSelectorTerms`` narrowed to one node: each of the ORed terms gets the node's name as a field."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    if not terms:
        return [{"matchFields": [field]}]
    narrowed: list[dict[str, Any]] = []
    for term in terms:
        body: dict[str, Any] = msgspec.to_builtins(term)
        others = [f for f in body.get("matchFields", []) if f != field]
        narrowed.append({**body, "matchFields": [*others, field]})
    return narrowed


def _is_pinned(pod: k.Pod) -> bool:
    """Whether an executor says that it has a slot, and can go nowhere else."""
    slot = pod.metadata.annotations.get(names.SLOT_ANNOTATION)
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    if not slot or affinity is None or affinity.required is None:
        return False
    here = k.NodeSelectorRequirement("metadata.name", "In", (slot,))
    return all(here in term.match_fields for term in affinity.required.node_selector_terms)


def _gate(pod: k.Pod) -> dict[str, Any]:
    gate = {"name": names.GANG_GATE}
    if pod.spec.scheduling_gates:
        return {"op": "add", "path": "/spec/schedulingGates/-", "value": gate}
    return {"op": "add", "path": "/spec/schedulingGates", "value": [gate]}


def _annotate(pod: k.Pod, notes: dict[str, str]) -> JsonPatch:
    if not pod.metadata.annotations:
        return [{"op": "add", "path": "/metadata/annotations", "value": notes}]
    return [
        {"op": "add", "path": f"/metadata/annotations/{_pointer(key)}", "value": text} for key, text in notes.items()
    ]


def _pin(affinity: k.Affinity | None, node: str) -> JsonPatch:
    node_affinity = affinity.node_affinity if affinity else None
    required = node_affinity.required if node_affinity else None
    selector = {"nodeSelectorTerms": pinned_terms(required.node_selector_terms if required else (), node)}
    name = "requiredDuringSchedulingIgnoredDuringExecution"
    if affinity is None:
        return [{"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": {name: selector}}}]
    if node_affinity is None:
        return [{"op": "add", "path": "/spec/affinity/nodeAffinity", "value": {name: selector}}]
    return [{"op": "add", "path": f"/spec/affinity/nodeAffinity/{name}", "value": selector}]


def _pointer(key: str) -> str:
    """RFC 6901 escapes."""
    return key.replace("~", "~0").replace("/", "~1")


def _refuse(reason: str) -> web.Response:
    _log.warning("bad admission review", reason=reason)
    return web.json_response({"error": reason}, status=400)
