"""The CustomResourceDefinitions of ``ResourceReservation`` and ``Demand``, and bringing them into a cluster.

A definition is never deleted: with it would go every object of its kind. (The archived scheduler deleted the one of
``ResourceReservation`` when it did not become ready in time, and with it all reservations.)
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from muster.control.extender import demands, reservations
from muster.kube.client import Client
from muster.kube.errors import ApiError
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS

Schema = dict[str, Any]
Definition = dict[str, Any]

RESERVATIONS_NAME = f"resourcereservations.{reservations.GROUP}"
DEMANDS_NAME = f"demands.{demands.GROUP}"
CONVERT_PATH = "/convert"

_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_ESTABLISHED_SECONDS = 60.0
_POLL_SECONDS = 0.5


class ConversionWebhook(msgspec.Struct, frozen=True):
    """Where the API server finds ``POST /convert``."""

    namespace: str
    service: str
    port: int
    path: str
    """With the server's context path: ``/spark-scheduler/convert``."""
    ca_pem: bytes


class DefinitionError(Exception):
    """A definition could not be brought into the cluster; the message names it and what to do. Nothing was deleted."""


def reservation_definition(
    webhook: ConversionWebhook | None, annotations: Mapping[str, str] | None = None
) -> Definition:
    """``v1beta1`` is stored and ``v1beta2`` served beside it, as in the clusters of the archived scheduler.

    Without a ``webhook`` nobody can convert, and there is ``v1beta2`` alone: for clusters that never had another.
    """
    versions = [
        _version(
            "v1beta2",
            _reservation_schema({"node": {"type": "string"}, "resources": _TEXTS}),
            storage=webhook is None,
            columns=_RESERVATION_COLUMNS,
        ),
    ]
    if webhook is not None:
        fields: Schema = {name: {"type": "string"} for name in ("node", "cpu", "memory")}
        versions.append(_version("v1beta1", _reservation_schema(fields), storage=True, columns=_RESERVATION_COLUMNS))
    definition = _definition(
        reservations.GROUP, reservations.KIND, "resourcereservations", "rr", versions, _conversion(webhook)
    )
    if annotations:
        definition["metadata"]["annotations"] = dict(annotations)
    return definition


def demand_definition(webhook: ConversionWebhook | None) -> Definition:
    """``v1alpha2`` is stored; ``v1alpha1`` is served where a ``webhook`` can convert.

    The archived one declared ``pod-names-by-namespace`` as an object without properties, so that the API server
    pruned its content; here it is kept.
    """
    versions = [
        _version("v1alpha2", _demand_schema(), storage=True, columns=_DEMAND_COLUMNS, status=True),
    ]
    if webhook is not None:
        versions.append(
            _version("v1alpha1", _old_demand_schema(), storage=False, columns=_OLD_DEMAND_COLUMNS, status=True)
        )
    return _definition(demands.GROUP, demands.KIND, "demands", "dem", versions, _conversion(webhook))


def is_current(installed: Definition, wanted: Definition) -> bool:
    """Whether ``installed`` needs no change: the same versions, served and stored, and the same conversion.

    Schemas are not compared, as ever; annotations that others added do not count (they did).
    """
    return (
        _flags(installed) == _flags(wanted)
        and _annotations(installed).items() >= _annotations(wanted).items()
        and _normal(installed["spec"].get("conversion")) == _normal(wanted["spec"].get("conversion"))
    )


def is_established(definition: Definition) -> bool:
    """Whether the API server serves it."""
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions)


def prunes_pod_names(definition: Definition) -> bool:
    """Whether an installed definition of ``Demand`` loses the pods' names, as the archived autoscaler's own does."""
    for version in definition["spec"]["versions"]:
        if version["name"] == "v1alpha2":
            schema = version.get("schema", {}).get("openAPIV3Schema", {})
            for key in ("spec", "units"):
                schema = schema.get("properties", {}).get(key, {})
            names = schema.get("items", {}).get("properties", {}).get("pod-names-by-namespace", {})
            return not ("additionalProperties" in names or names.get("x-kubernetes-preserve-unknown-fields"))
    return False


async def ensure_definition(client: Client, wanted: Definition, *, timeout: float = _ESTABLISHED_SECONDS) -> Definition:
    """Create or update ``wanted`` and wait until the API server serves it; returns what is installed then.

    Raises:
        DefinitionError: the API server refuses it, or does not serve it after ``timeout`` seconds.
    """
    name = wanted["metadata"]["name"]
    clock = client.clock
    deadline = clock.monotonic() + timeout
    while True:
        try:
            installed = await _put(client, wanted)
        except ApiError as error:
            away = error.unreachable or error.code == 429 or error.code >= 500
            if not away or clock.monotonic() >= deadline:
                raise DefinitionError(
                    f"CustomResourceDefinition {name} cannot be installed: {error}. What was installed is untouched."
                ) from None
            installed = None
        if installed is not None and is_established(installed):
            return installed
        if clock.monotonic() >= deadline:
            raise DefinitionError(
                f"CustomResourceDefinition {name} is not served after {timeout:.0f} s; it was left as it is. "
                f"`kubectl describe crd {name}` shows why."
            )
        await clock.sleep(_POLL_SECONDS)


async def _put(client: Client, wanted: Definition) -> Definition | None:
    """One step towards ``wanted``; ``None`` when somebody else was faster. Raises ``ApiError``."""
    name = wanted["metadata"]["name"]
    try:
        installed = await client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
    except ApiError as error:
        if not error.not_found:
            raise
        installed = None
    try:
        if installed is None:
            return await client.create(CUSTOM_RESOURCE_DEFINITIONS, wanted)
        if is_current(installed, wanted):
            return installed
        return await client.replace(CUSTOM_RESOURCE_DEFINITIONS, name, _updated(installed, wanted))
    except ApiError as error:
        if error.already_exists or error.conflict:
            return None
        raise


def _updated(installed: Definition, wanted: Definition) -> Definition:
    """``wanted`` over ``installed``, whose labels, annotations and owners stay."""
    metadata = {**installed["metadata"], **wanted["metadata"]}
    for key in ("labels", "annotations"):
        merged = {**(installed["metadata"].get(key) or {}), **(wanted["metadata"].get(key) or {})}
        if merged:
            metadata[key] = merged
    return {**wanted, "metadata": metadata}


def _flags(definition: Definition) -> dict[str, tuple[bool, bool]]:
    return {each["name"]: (each["served"], each["storage"]) for each in definition["spec"]["versions"]}


def _annotations(definition: Definition) -> dict[str, str]:
    return definition["metadata"].get("annotations") or {}


def _normal(conversion: Schema | None) -> Schema:
    """With the values that the API server fills in."""
    if conversion is None or conversion.get("strategy") != "Webhook":
        return {"strategy": "None"}
    webhook = conversion.get("webhook") or {}
    config = dict(webhook.get("clientConfig") or {})
    if config.get("service"):
        config["service"] = {"port": 443, **config["service"]}
    return {"strategy": "Webhook", "webhook": {**webhook, "clientConfig": config}}


def _conversion(webhook: ConversionWebhook | None) -> Schema:
    if webhook is None:
        return {"strategy": "None"}
    service = {
        "namespace": webhook.namespace,
        "name": webhook.service,
        "port": webhook.port,
        "path": webhook.path,
    }
    config = {"service": service, "caBundle": b64encode(webhook.ca_pem).decode()}
    return {
        "strategy": "Webhook",
        "webhook": {"clientConfig": config, "conversionReviewVersions": ["v1", "v1beta1"]},
    }


def _definition(
    group: str, kind: str, plural: str, short: str, versions: list[Schema], conversion: Schema
) -> Definition:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["all"],
            },
            "versions": versions,
            "conversion": conversion,
        },
    }


def _version(name: str, schema: Schema, *, storage: bool, columns: list[Schema], status: bool = False) -> Schema:
    version: Schema = {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    }
    return version | ({"subresources": {"status": {}}} if status else {})


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


_RESERVATION_COLUMNS = [_column("driver", ".status.pods.driver")]
_OLD_DEMAND_COLUMNS = [
    _column("status", ".status.phase"),
    _column("instance group", ".spec.instance-group"),
    _column("long lived", ".spec.is-long-lived", "boolean"),
    _column("units", ".spec.units", priority=1),
]
_DEMAND_COLUMNS = [
    *_OLD_DEMAND_COLUMNS[:3],
    _column("single zone", ".spec.enforce-single-zone-scheduling", "boolean"),
    _column("zone", ".spec.zone"),
    _column("fulfilled zone", ".status.fulfilled-zone"),
    _OLD_DEMAND_COLUMNS[3],
]


def _reservation_schema(slot: Schema) -> Schema:
    slots = {"type": "object", "required": list(slot), "properties": slot}
    return {
        "type": "object",
        "required": ["spec", "metadata"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["reservations"],
                "properties": {"reservations": {"type": "object", "additionalProperties": slots}},
            },
            "status": {"type": "object", "required": ["pods"], "properties": {"pods": _TEXTS}},
        },
    }


def _demand_schema() -> Schema:
    quantity = {"type": "string", "minLength": 1}
    unit = {
        "type": "object",
        "required": ["count", "resources"],
        "properties": {
            "resources": {
                "type": "object",
                "properties": dict.fromkeys(("cpu", "memory", "nvidia.com/gpu"), quantity),
            },
            "count": _COUNT,
            "pod-names-by-namespace": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        },
    }
    return _demand(
        unit,
        {"enforce-single-zone-scheduling": {"type": "boolean"}, "zone": {"type": "string"}},
        {"fulfilled-zone": {"type": "string", "nullable": True}},
    )


def _old_demand_schema() -> Schema:
    quantity = {"type": "string", "minLength": 1}
    unit = {
        "type": "object",
        "required": ["count", "cpu", "memory"],
        "properties": {"count": _COUNT, "cpu": quantity, "memory": quantity, "gpu": quantity},
    }
    return _demand(unit, {}, {})


_COUNT: Schema = {"type": "integer", "minimum": 1}


def _demand(unit: Schema, more_spec: Schema, more_status: Schema) -> Schema:
    spec = {
        "units": {"type": "array", "items": unit},
        "instance-group": {"type": "string", "minLength": 1},
        "is-long-lived": {"type": "boolean"},
        **more_spec,
    }
    status = {
        "phase": {"type": "string", "enum": [phase.value for phase in demands.DemandPhase]},
        "last-transition-time": {"type": "string", "format": "date-time", "nullable": True},
        **more_status,
    }
    return {
        "type": "object",
        "required": ["spec", "metadata"],
        "properties": {
            "spec": {"type": "object", "required": ["units", "instance-group"], "properties": spec},
            "status": {"type": "object", "required": ["phase"], "properties": status},
        },
    }
