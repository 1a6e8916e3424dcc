"""Pods: defaults, status of a new pod, what may change, how they are deleted.

Sources: ``pkg/apis/core/v1/defaults.go``, ``pkg/registry/core/pod/strategy.go``, ``pkg/apis/core/validation``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from muster.cluster.quantity import QuantityError, parse
from muster.devcluster.errors import Cause, bad_request
from muster.devcluster.metadata import is_dns_label, is_dns_subdomain
from muster.devcluster.storage import Object, decode, encode
from muster.devcluster.strategy import Strategy

FINISHED = ("Succeeded", "Failed")


def containers_of(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(field path, container) of every container, init containers last."""
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield f"spec.{field}[{index}]", container


class PodStrategy(Strategy):
    def default(self, obj: Object) -> None:
        default_pod_spec(obj.setdefault("spec", {}))

    def prepare_create(self, obj: Object) -> None:
        obj["metadata"]["generation"] = 1
        obj["status"] = new_status(obj["spec"], obj["metadata"]["creationTimestamp"])

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        if subresource == "binding":
            return
        super().prepare_update(new, old, subresource)
        if subresource == "status":
            _keep_owners(new, old)
            new["status"].setdefault("qosClass", qos_class(new["spec"]))
        elif not subresource and not new["spec"].get("schedulingGates"):
            _drop_gated_condition(new, old)

    def validate_create(self, obj: Object) -> list[Cause]:
        return spec_causes(obj["spec"])

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        return [] if subresource else update_causes(new["spec"], old["spec"])

    def grace(self, obj: Object, asked: int | None) -> int:
        if not obj["spec"].get("nodeName") or obj.get("status", {}).get("phase") in FINISHED:
            return 0
        period = obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
        return 1 if period < 0 else int(period)


def default_pod_spec(spec: dict[str, Any]) -> None:
    """The defaults of ``SetDefaults_PodSpec``, ``_Pod`` and ``_Container``, in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for _, container in containers_of(spec):
        _default_container(container, bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: dict[str, Any], host_network: bool) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        image = container.get("image", "")
        tag = image.rsplit("/", 1)[-1].partition("@")
        latest = not tag[1] and (":" not in tag[0] or tag[0].endswith(":latest"))
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    resources = container.setdefault("resources", {})
    for part in ("requests", "limits"):
        if resources.get(part):
            canonical_quantities(resources[part])
    if resources.get("limits"):
        requests = resources.setdefault("requests", {})
        for name, amount in resources["limits"].items():
            requests.setdefault(name, amount)
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network:
            port.setdefault("hostPort", port.get("containerPort"))
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe):
            defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
            container[probe] = defaults | container[probe]


def _default_volume(volume: dict[str, Any]) -> None:
    for source in ("configMap", "secret", "projected", "downwardAPI"):
        if volume.get(source) is not None:
            volume[source].setdefault("defaultMode", 0o644)
    if not set(volume) - {"name"}:
        volume["emptyDir"] = {}
    items = [*((volume.get("downwardAPI") or {}).get("items") or ())]
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        items.extend((source.get("downwardAPI") or {}).get("items") or ())
    for item in items:
        if item.get("fieldRef") is not None:
            item["fieldRef"].setdefault("apiVersion", "v1")


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    return str(parse(text))


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort. Source: ``pkg/apis/core/v1/helper/qos``."""
    guaranteed, any_amount = True, False
    for _, container in containers_of(spec):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            if name in requests or name in limits:
                any_amount = True
            if name not in limits or requests.get(name) != limits[name]:
                guaranteed = False
    if not any_amount:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def canonical_quantities(amounts: dict[str, Any]) -> None:
    """Writes quantities as the API does ("0.5" becomes "500m"), in place. Raises 400 BadRequest."""
    for name, amount in amounts.items():
        try:
            amounts[name] = _canonical(amount if type(amount) is str else str(amount))
        except QuantityError as error:
            raise bad_request(f"{name}: {error}") from None


def new_status(spec: Mapping[str, Any], created: str) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Pending"}
    if spec.get("schedulingGates"):
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastTransitionTime": created,
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
        status["conditions"] = [condition]
    status["qosClass"] = qos_class(spec)
    return status


def _drop_gated_condition(new: Object, old: Object) -> None:
    """The condition says why the pod waits; kube-scheduler replaces it, the API server itself only drops the gate."""
    if not old["spec"].get("schedulingGates"):
        return
    status = new.get("status") or {}
    kept = [c for c in status.get("conditions") or () if c.get("reason") != "SchedulingGated"]
    if len(kept) != len(status.get("conditions") or ()):
        new["status"] = {**status, "conditions": kept}
        if not kept:
            del new["status"]["conditions"]


def _keep_owners(new: Object, old: Object) -> None:
    owners = old["metadata"].get("ownerReferences")
    if owners is None:
        new["metadata"].pop("ownerReferences", None)
    else:
        new["metadata"]["ownerReferences"] = owners


def spec_causes(spec: Mapping[str, Any]) -> list[Cause]:
    """What is wrong with a new pod's spec, as far as clients come across it."""
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(Cause("FieldValueRequired", "Required value", "spec.containers"))
    names: set[str] = set()
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    for path, container in containers_of(spec):
        name = container.get("name") or ""
        if not is_dns_label(name):
            causes.append(_bad_name(name, f"{path}.name"))
        elif name in names:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
        names.add(name)
        if not container.get("image"):
            causes.append(Cause("FieldValueRequired", "Required value", f"{path}.image"))
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            if mount.get("name") not in volumes:
                field = f"{path}.volumeMounts[{index}].name"
                causes.append(Cause("FieldValueNotFound", f'Not found: "{mount.get("name")}"', field))
        causes.extend(_resource_causes(container.get("resources") or {}, f"{path}.resources"))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        said = f'Unsupported value: "{spec.get("restartPolicy")}": supported values: "Always", "OnFailure", "Never"'
        causes.append(Cause("FieldValueNotSupported", said, "spec.restartPolicy"))
    node = spec.get("nodeName")
    if node and not is_dns_subdomain(node):
        causes.append(_bad_name(node, "spec.nodeName"))
    gates = spec.get("schedulingGates") or ()
    if gates and node:
        said = "Forbidden: cannot be set until all schedulingGates have been cleared"
        causes.append(Cause("FieldValueForbidden", said, "spec.nodeName"))
    for index, gate in enumerate(gates):
        if gate in gates[:index]:
            causes.append(
                Cause("FieldValueDuplicate", f'Duplicate value: "{gate.get("name")}"', "spec.schedulingGates")
            )
    return causes


def _bad_name(name: str, field: str) -> Cause:
    if not name:
        return Cause("FieldValueRequired", "Required value", field)
    return Cause("FieldValueInvalid", f'Invalid value: "{name}": must be a lowercase RFC 1123 name', field)


def _resource_causes(resources: Mapping[str, Any], path: str) -> Iterator[Cause]:
    limits = resources.get("limits") or {}
    for part in ("requests", "limits"):
        for name, amount in (resources.get(part) or {}).items():
            value = parse(amount).nanos
            if value < 0:
                said = f'Invalid value: "{amount}": must be greater than or equal to 0'
                yield Cause("FieldValueInvalid", said, f"{path}.{part}[{name}]")
            if part == "requests" and name in limits and value > parse(limits[name]).nanos:
                said = f'Invalid value: "{amount}": must be less than or equal to {name} limit of {limits[name]}'
                yield Cause("FieldValueInvalid", said, f"{path}.requests")


FORBIDDEN_UPDATE = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def update_causes(new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """What an update of a pod's spec may not do. Source: ``ValidatePodUpdate``."""
    causes: list[Cause] = []
    changed: dict[str, Any] = decode(encode(new))
    changed.pop("activeDeadlineSeconds", None)
    original = {key: value for key, value in old.items() if key != "activeDeadlineSeconds"}
    if not [gate for gate in new.get("schedulingGates") or () if gate not in (old.get("schedulingGates") or ())]:
        _adopt(changed, old, "schedulingGates")
    else:
        said = "Forbidden: only deletion is allowed, but found new scheduling gates"
        causes.append(Cause("FieldValueForbidden", said, "spec.schedulingGates"))
        _adopt(changed, old, "schedulingGates")
    if all(toleration in (new.get("tolerations") or ()) for toleration in old.get("tolerations") or ()):
        _adopt(changed, old, "tolerations")
    for (_, container), (_, before) in zip(containers_of(changed), containers_of(old), strict=False):
        if container.get("image"):
            container["image"] = before.get("image")
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        changed["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    if old.get("schedulingGates"):
        _allow_tightening(changed, old)
    if changed != original:
        causes.append(Cause("FieldValueForbidden", FORBIDDEN_UPDATE, "spec"))
    return causes


def _adopt(spec: dict[str, Any], source: dict[str, Any], field: str) -> None:
    spec.pop(field, None)
    if field in source:
        spec[field] = source[field]


def _allow_tightening(new: dict[str, Any], old: dict[str, Any]) -> None:
    """While a pod is gated, its node selector may gain entries and its required node affinity may only narrow."""
    before, now = old.get("nodeSelector") or {}, new.get("nodeSelector") or {}
    if all(now.get(key) == value for key, value in before.items()):
        _adopt(new, old, "nodeSelector")
    affinity, earlier = new.get("affinity") or {}, old.get("affinity") or {}
    node, node_before = affinity.get("nodeAffinity") or {}, earlier.get("nodeAffinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    others = {key: value for key, value in affinity.items() if key != "nodeAffinity"}
    others_before = {key: value for key, value in earlier.items() if key != "nodeAffinity"}
    if others == others_before and _narrower(node.get(required), node_before.get(required)):
        _adopt(new, old, "affinity")


def _narrower(new: Mapping[str, Any] | None, old: Mapping[str, Any] | None) -> bool:
    terms = (old or {}).get("nodeSelectorTerms") or ()
    if not terms:
        return True
    now = (new or {}).get("nodeSelectorTerms") or ()
    if len(now) != len(terms):
        return False
    return all(
        expression in (term.get(part) or ())
        for term, before in zip(now, terms, strict=True)
        for part in ("matchExpressions", "matchFields")
        for expression in before.get(part) or ()
    )
