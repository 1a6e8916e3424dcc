"""Subresources that act rather than store, and the kinds that only answer a question."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.devcluster import errors
from muster.devcluster.authentication import Identity, Tokens, service_account
from muster.devcluster.metadata import is_being_deleted
from muster.devcluster.registry import Registry
from muster.devcluster.requests import Request
from muster.devcluster.selectors import Selector, from_label_selector
from muster.devcluster.storage import Object

SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def success(code: int) -> Object:
    return SUCCESS | {"code": code}


async def bind(registry: Registry, request: Request, binding: Object) -> Object:
    """POST pods/NAME/binding. Raises 404, 409 for a pod that is bound, gated or being deleted."""
    node = (binding.get("target") or {}).get("name")
    if not node:
        cause = errors.Cause("FieldValueRequired", "Required value", "target.name")
        raise errors.invalid("Binding", "", request.target.name, [cause])
    given_uid = (binding.get("metadata") or {}).get("uid")
    annotations = (binding.get("metadata") or {}).get("annotations") or {}

    def assigned(pod: Object) -> Object:
        def refuse(why: str) -> errors.ApiError:
            return errors.conflict("pods/binding", "", request.target.name, why)

        if given_uid and given_uid != pod["metadata"]["uid"]:
            raise refuse(f"Precondition failed: UID in precondition: {given_uid}, UID in object meta: "
                         f"{pod['metadata']['uid']}")  # fmt: skip
        if is_being_deleted(pod):
            raise refuse(f"pod {request.target.name} is being deleted, cannot be assigned to a host")
        if pod["spec"].get("nodeName"):
            raise refuse(f'pod {request.target.name} is already assigned to node "{pod["spec"]["nodeName"]}"')
        if pod["spec"].get("schedulingGates"):
            raise refuse(f"pod {request.target.name} has non-empty .spec.schedulingGates")
        conditions = [c for c in pod["status"].get("conditions") or () if c["type"] != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": registry.origin.timestamp()}
        bound = pod | {
            "spec": pod["spec"] | {"nodeName": node},
            "status": pod["status"] | {"conditions": [*conditions, scheduled]},
        }
        if annotations:
            merged = (pod["metadata"].get("annotations") or {}) | annotations
            bound["metadata"] = pod["metadata"] | {"annotations": merged}
        return bound

    await registry.change(request, assigned, "Update")
    return success(201)


async def evict(registry: Registry, request: Request, eviction: Object) -> Object:
    """POST pods/NAME/eviction. Raises 404, 429 when a disruption budget has nothing left."""
    record = registry.get(request)
    if record.obj["status"].get("phase") not in ("Succeeded", "Failed", "Pending"):
        _spend_budget(registry, request, record.obj)
    plain = msgspec.structs.replace(request, target=msgspec.structs.replace(request.target, subresource=""))
    await registry.delete(plain, eviction.get("deleteOptions") or {})
    return success(201)


def _spend_budget(registry: Registry, request: Request, pod: Object) -> None:
    store = registry.store
    budgets = store.collection("poddisruptionbudgets.policy").scan(request.target.space)
    for budget in budgets:
        selector = (budget.obj.get("spec") or {}).get("selector")
        if selector is None or not Selector(from_label_selector(selector)).matches(pod):
            continue
        allowed = budget.obj["status"].get("disruptionsAllowed", 0)
        if allowed < 1:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            cause = {"reason": "DisruptionBudget", "message": f"The disruption budget {budget.key[1]} needs its pods"}
            raise errors.ApiError(429, "TooManyRequests", message, details={"causes": [cause]})
        status = budget.obj["status"] | {"disruptionsAllowed": allowed - 1}
        spent = budget.obj | {"metadata": dict(budget.obj["metadata"]), "status": status}
        store.put("poddisruptionbudgets.policy", spent, budget)


def create_token(registry: Registry, tokens: Tokens, request: Request, body: Object) -> Object:
    """POST serviceaccounts/NAME/token: a TokenRequest with its token. Raises 404, 422."""
    account = registry.get(request).obj
    spec: dict[str, Any] = dict(body.get("spec") or {})
    seconds = spec.get("expirationSeconds") or 3600
    if not isinstance(seconds, int) or seconds < 600:
        said = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        cause = errors.Cause("FieldValueInvalid", said, "spec.expirationSeconds")
        raise errors.invalid("TokenRequest", "authentication.k8s.io", "", [cause])
    identity = service_account(request.target.space, request.target.name, account["metadata"]["uid"])
    spec["expirationSeconds"] = seconds
    spec.setdefault("audiences", ["https://kubernetes.default.svc"])
    now, expires = registry.origin.timestamp(), registry.origin.timestamp(seconds)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": request.target.name, "namespace": request.target.space, "creationTimestamp": now},
        "spec": spec,
        "status": {"token": tokens.issue(identity, seconds), "expirationTimestamp": expires},
    }


def answer(tokens: Tokens, request: Request, body: Object) -> Object:
    """The kinds that are asked, not stored. Everybody known may do everything: there is no RBAC here."""
    kind = request.kind
    status: dict[str, Any]
    if kind.kind == "TokenReview":
        identity = tokens.identify(str((body.get("spec") or {}).get("token", "")))
        status = _token_status(identity)
    elif kind.kind == "SelfSubjectReview":
        status = {"userInfo": request.user.user_info}
    else:
        status = {"allowed": True, "reason": "every authenticated user is an administrator of this cluster"}
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {"creationTimestamp": None},
        "spec": body.get("spec") or {},
        "status": status,
    }


def _token_status(identity: Identity | None) -> dict[str, Any]:
    if identity is None:
        return {"user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": identity.user_info}
