"""The strategies of the built-in kinds other than pods, and the table of all of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

from muster.devcluster.errors import Cause
from muster.devcluster.kinds import Kind
from muster.devcluster.pods import PodStrategy, canonical_quantities, default_pod_spec
from muster.devcluster.storage import Object
from muster.devcluster.strategy import Strategy


class NamespaceStrategy(Strategy):
    def default(self, obj: Object) -> None:
        labels = obj["metadata"].setdefault("labels", {})
        if obj["metadata"].get("name"):
            labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]

    def prepare_create(self, obj: Object) -> None:
        super().prepare_create(obj)
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        if subresource == "finalize":
            new["status"] = old["status"]
            return
        super().prepare_update(new, old, subresource)
        new["spec"] = old["spec"]


class NodeStrategy(Strategy):
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("podCIDR"):
            spec.setdefault("podCIDRs", [spec["podCIDR"]])
        status = obj.get("status") or {}
        for part in ("capacity", "allocatable"):
            if status.get(part):
                canonical_quantities(status[part])

    def prepare_create(self, obj: Object) -> None:
        """A node is the one object whose creator may set the status: the kubelet registers with it."""
        obj.setdefault("status", {})


class ServiceStrategy(Strategy):
    """Services get cluster addresses from ``network``; nothing routes to them here."""

    def __init__(self, kind: Kind, network: str = "10.96.0.0/16") -> None:
        super().__init__(kind)
        self._free: Iterator[Any] = iter(ipaddress.ip_network(network).hosts())
        next(self._free)

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports") or ():
            port.setdefault("protocol", "TCP")
            if spec["type"] != "ExternalName":
                port.setdefault("targetPort", port.get("port"))

    def prepare_create(self, obj: Object) -> None:
        spec = obj["spec"]
        obj["status"] = {"loadBalancer": {}}
        if spec["type"] == "ExternalName":
            return
        if not spec.get("clusterIP"):
            spec["clusterIP"] = str(next(self._free))
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        super().prepare_update(new, old, subresource)
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if key in old["spec"]:
                new["spec"].setdefault(key, old["spec"][key])

    def validate_create(self, obj: Object) -> list[Cause]:
        spec = obj["spec"]
        if not spec.get("ports") and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
            return [Cause("FieldValueRequired", "Required value", "spec.ports")]
        return []

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        if new["spec"].get("clusterIP") != old["spec"].get("clusterIP"):
            said = f'Invalid value: "{new["spec"].get("clusterIP")}": field is immutable'
            return [Cause("FieldValueInvalid", said, "spec.clusterIPs[0]")]
        return self.validate_create(new)


class ConfigStrategy(Strategy):
    """ConfigMaps and Secrets: ``immutable`` ones keep their data."""

    def default(self, obj: Object) -> None:
        if self.kind.kind == "Secret":
            obj.setdefault("type", "Opaque")
            if obj.get("stringData"):
                obj["data"] = (obj.get("data") or {}) | _as_base64(obj.pop("stringData"))

    def validate_create(self, obj: Object) -> list[Cause]:
        size = sum(len(str(value)) for part in ("data", "binaryData") for value in (obj.get(part) or {}).values())
        if size > 1024 * 1024:
            return [Cause("FieldValueTooLong", "Too long: may not be more than 1048576 bytes", "")]
        return []

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        causes = self.validate_create(new)
        if old.get("immutable"):
            said = "Forbidden: field is immutable when `immutable` is set"
            changed = [part for part in ("data", "binaryData") if (new.get(part) or {}) != (old.get(part) or {})]
            if not new.get("immutable"):
                changed.append("immutable")
            causes.extend(Cause("FieldValueForbidden", said, part) for part in changed)
        return causes


def _as_base64(texts: dict[str, str]) -> dict[str, str]:
    from base64 import b64encode

    return {key: b64encode(text.encode()).decode() for key, text in texts.items()}


class WorkloadStrategy(Strategy):
    """Deployments and their like are stored with the usual defaults; no controller acts on them."""

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if self.kind.kind != "DaemonSet":
            spec.setdefault("replicas" if self.kind.kind != "Job" else "completions", 1)
        template = spec.get("template")
        if template:
            template.setdefault("metadata", {})
            default_pod_spec(template.setdefault("spec", {}))

    def prepare_create(self, obj: Object) -> None:
        super().prepare_create(obj)
        obj["status"] = {}

    def validate_create(self, obj: Object) -> list[Cause]:
        if self.kind.kind == "Job":
            return []
        spec = obj["spec"]
        selector = spec.get("selector") or {}
        labels = (spec.get("template") or {}).get("metadata", {}).get("labels") or {}
        if not selector:
            return [Cause("FieldValueRequired", "Required value", "spec.selector")]
        if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
            said = "Invalid value: `selector` does not match template `labels`"
            return [Cause("FieldValueInvalid", said, "spec.template.metadata.labels")]
        return []


class LeaseStrategy(Strategy):
    unconditional_update = False
    create_on_update = True

    def validate_create(self, obj: Object) -> list[Cause]:
        duration = (obj.get("spec") or {}).get("leaseDurationSeconds")
        if duration is not None and duration <= 0:
            said = f"Invalid value: {duration}: must be greater than 0"
            return [Cause("FieldValueInvalid", said, "spec.leaseDurationSeconds")]
        return []

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        return self.validate_create(new)


class ClaimStrategy(Strategy):
    def prepare_create(self, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}
        obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


class EventStrategy(Strategy):
    create_on_update = True

    def default(self, obj: Object) -> None:
        obj.setdefault("source", {})


class BudgetStrategy(Strategy):
    def prepare_create(self, obj: Object) -> None:
        super().prepare_create(obj)
        counts = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
        obj["status"] = dict.fromkeys(counts, 0)


class WebhookStrategy(Strategy):
    """Webhook configurations: the defaults of ``admissionregistration/v1``."""

    def default(self, obj: Object) -> None:
        for webhook in obj.get("webhooks") or ():
            webhook.setdefault("failurePolicy", "Fail")
            webhook.setdefault("matchPolicy", "Equivalent")
            webhook.setdefault("namespaceSelector", {})
            webhook.setdefault("objectSelector", {})
            webhook.setdefault("timeoutSeconds", 10)
            if self.kind.kind.startswith("Mutating"):
                webhook.setdefault("reinvocationPolicy", "Never")
            for rule in webhook.get("rules") or ():
                rule.setdefault("scope", "*")
            service = (webhook.get("clientConfig") or {}).get("service")
            if service:
                service.setdefault("port", 443)

    def validate_create(self, obj: Object) -> list[Cause]:
        causes = []
        for index, webhook in enumerate(obj.get("webhooks") or ()):
            path = f"webhooks[{index}]"
            if "v1" not in (webhook.get("admissionReviewVersions") or ()):
                said = "Required value: must specify one of v1, v1beta1"
                causes.append(Cause("FieldValueRequired", said, f"{path}.admissionReviewVersions"))
            if webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
                said = f'Unsupported value: "{webhook.get("sideEffects")}": supported values: "None", "NoneOnDryRun"'
                causes.append(Cause("FieldValueNotSupported", said, f"{path}.sideEffects"))
            if str(webhook.get("name", "")).count(".") < 2:
                said = f'Invalid value: "{webhook.get("name")}": should be a domain with at least three segments '
                said += "separated by dots"
                causes.append(Cause("FieldValueInvalid", said, f"{path}.name"))
            if not 1 <= webhook["timeoutSeconds"] <= 30:
                said = f"Invalid value: {webhook['timeoutSeconds']}: the timeout value must be between 1 and 30 seconds"
                causes.append(Cause("FieldValueInvalid", said, f"{path}.timeoutSeconds"))
        return causes

    def validate_update(self, new: Object, old: Object, subresource: str) -> list[Cause]:
        return self.validate_create(new)


class PriorityClassStrategy(Strategy):
    def default(self, obj: Object) -> None:
        obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
        obj.setdefault("value", 0)


class NetworkPolicyStrategy(Strategy):
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
            for port in rule.get("ports") or ():
                port.setdefault("protocol", "TCP")


BY_COLLECTION: dict[str, Callable[[Kind], Strategy]] = {
    "namespaces": NamespaceStrategy,
    "pods": PodStrategy,
    "nodes": NodeStrategy,
    "services": ServiceStrategy,
    "configmaps": ConfigStrategy,
    "secrets": ConfigStrategy,
    "events": EventStrategy,
    "persistentvolumeclaims": ClaimStrategy,
    "leases.coordination.k8s.io": LeaseStrategy,
    "poddisruptionbudgets.policy": BudgetStrategy,
    "priorityclasses.scheduling.k8s.io": PriorityClassStrategy,
    "networkpolicies.networking.k8s.io": NetworkPolicyStrategy,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": WebhookStrategy,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": WebhookStrategy,
    "deployments.apps": WorkloadStrategy,
    "statefulsets.apps": WorkloadStrategy,
    "replicasets.apps": WorkloadStrategy,
    "daemonsets.apps": WorkloadStrategy,
    "jobs.batch": WorkloadStrategy,
}


def strategy_for(kind: Kind) -> Strategy:
    return BY_COLLECTION.get(kind.collection, Strategy)(kind)
