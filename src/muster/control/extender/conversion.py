"""``POST /convert``: the versions of ``ResourceReservation`` and ``Demand`` into each other (ConversionReview). Pure.

Objects are converted as plain JSON values, so that metadata nobody here knows of comes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from muster.cluster.resources import CPU, GPU, MEMORY
from muster.control.extender import demands, reservations
from muster.control.extender.reservations import SPEC_ANNOTATION
from muster.kube.objects import KubeStruct, Status

Object = dict[str, Any]

REVIEW_VERSIONS = ("apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1")


class BadConversion(ValueError):
    """What was posted is no ConversionReview; to be answered with 400 and this text."""


class ConversionError(ValueError):
    """An object that cannot be converted: the review's answer is a failure with this text."""


class ConversionRequest(KubeStruct, frozen=True):
    uid: str
    desired_api_version: str = msgspec.field(name="desiredAPIVersion")
    objects: list[Object] = msgspec.field(default_factory=list)


class ConversionReview(KubeStruct, frozen=True):
    """``apiextensions.k8s.io`` v1 and v1beta1, which look the same."""

    request: ConversionRequest
    api_version: str = ""
    kind: str = ""


class ConversionResponse(KubeStruct, frozen=True, omit_defaults=False):
    uid: str
    converted_objects: list[Object]
    result: Status


class ConversionAnswer(KubeStruct, frozen=True, omit_defaults=False):
    response: ConversionResponse
    api_version: str
    kind: str = "ConversionReview"


_decode = msgspec.json.Decoder(ConversionReview).decode
# sorted, so that one object is always written in the same bytes
_encode = msgspec.json.Encoder(order="deterministic").encode


def answer_review(body: bytes) -> bytes:
    """The answer to one ConversionReview: all of its objects converted, or none and the reason.

    Raises:
        BadConversion: see there.
    """
    try:
        review = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadConversion(f"expected a ConversionReview of apiextensions.k8s.io: {error}") from None
    if review.kind != "ConversionReview" or review.api_version not in REVIEW_VERSIONS:
        raise BadConversion(
            f"expected a ConversionReview of {' or '.join(REVIEW_VERSIONS)}, "
            f"found kind {review.kind[:60]!r} of {review.api_version[:60]!r}"
        )
    request = review.request
    try:
        converted = [convert(each, request.desired_api_version) for each in request.objects]
    except ConversionError as error:
        converted, result = [], Status(status="Failure", message=str(error))
    else:
        result = Status(status="Success")
    return _encode(ConversionAnswer(ConversionResponse(request.uid, converted, result), review.api_version))


def convert(source: Object, api_version: str) -> Object:
    """``source`` in another version of its group.

    Raises:
        ConversionError: an unknown pair of versions (the same twice included), or an object that is not as it must be.
    """
    kind, version = source.get("kind"), source.get("apiVersion")
    conversion = _CONVERSIONS.get((str(kind), str(version), api_version))
    if conversion is None:
        raise ConversionError(f"cannot convert {str(kind)[:60]!r} from {str(version)[:60]!r} to {api_version[:60]!r}")
    try:
        return {"kind": kind, "apiVersion": api_version, **conversion(source)}
    except msgspec.ValidationError as error:
        name = _section(source, "metadata").get("name", "")
        raise ConversionError(f"{kind} {name!r} is not one of {version}: {error}") from None


def _reservation_to_v1beta1(source: Object) -> Object:
    """cpu and memory get fields of their own, everything else travels in an annotation."""
    spec = msgspec.convert(_section(source, "spec"), reservations.ReservationSpec)
    slots = {
        name: {"node": slot.node, "cpu": _text(slot, CPU), "memory": _text(slot, MEMORY)}
        for name, slot in spec.reservations.items()
    }
    metadata = _section(source, "metadata")
    annotations = {**_section(metadata, "annotations"), SPEC_ANNOTATION: _encode(spec).decode()}
    return {
        "metadata": {**metadata, "annotations": annotations},
        "spec": {"reservations": slots},
        "status": {"pods": _section(_section(source, "status"), "pods")},
    }


def _reservation_to_v1beta2(source: Object) -> Object:
    """What the annotation says of slots that are still there comes back, unless a field says otherwise."""
    metadata = dict(_section(source, "metadata"))
    annotations = dict(_section(metadata, "annotations"))
    kept = _annotated_spec(annotations.pop(SPEC_ANNOTATION, None)).reservations
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    old = msgspec.convert(_section(source, "spec"), _SpecV1Beta1)
    slots: Object = {}
    for name, slot in old.reservations.items():
        fields = {CPU: slot.cpu, MEMORY: slot.memory}
        more = kept[name].resources if name in kept else {}
        slots[name] = {"node": slot.node, "resources": {**more, **fields}}
    return {
        "metadata": metadata,
        "spec": {"reservations": slots},
        "status": {"pods": _section(_section(source, "status"), "pods")},
    }


class _SlotV1Beta1(KubeStruct, frozen=True):
    node: str = ""
    cpu: str | int = "0"
    memory: str | int = "0"


class _SpecV1Beta1(KubeStruct, frozen=True):
    reservations: dict[str, _SlotV1Beta1] = msgspec.field(default_factory=dict)


def _annotated_spec(text: object) -> reservations.ReservationSpec:
    if text is None:
        return reservations.ReservationSpec()
    try:
        return msgspec.json.decode(str(text), type=reservations.ReservationSpec)
    except msgspec.MsgspecError as error:
        raise ConversionError(f"annotation {SPEC_ANNOTATION} is not the JSON of a spec: {error}") from None


def _text(slot: reservations.Slot, resource: str) -> str:
    return str(slot.resources.get(resource, "0"))


def _demand_to_v1alpha1(source: Object) -> Object:
    """Zones and pod names are lost: v1alpha1 has no place for them."""
    spec = msgspec.convert(_section(source, "spec"), demands.DemandSpec)
    units = []
    for unit in spec.units:
        strange = sorted(unit.resources.keys() - {CPU, MEMORY, GPU})
        if strange:
            raise ConversionError(f"{demands.V1ALPHA1} knows cpu, memory and {GPU} only, not {', '.join(strange)}")
        gpu = {"gpu": unit.resources[GPU]} if GPU in unit.resources else {}
        fields = {"cpu": unit.resources.get(CPU, "0"), "memory": unit.resources.get(MEMORY, "0"), **gpu}
        units.append({"count": unit.count, **fields})
    status = {key: value for key, value in _section(source, "status").items() if key != "fulfilled-zone"}
    return {
        "metadata": _section(source, "metadata"),
        "spec": {"units": units, "instance-group": spec.instance_group, "is-long-lived": spec.is_long_lived},
        "status": {**_NEW_STATUS, **status},
    }


def _demand_to_v1alpha2(source: Object) -> Object:
    old = msgspec.convert(_section(source, "spec"), _DemandSpecV1Alpha1)
    units = [
        {"resources": {CPU: unit.cpu, MEMORY: unit.memory, GPU: unit.gpu or "0"}, "count": unit.count}
        for unit in old.units
    ]
    return {
        "metadata": _section(source, "metadata"),
        "spec": {
            "units": units,
            "instance-group": old.instance_group,
            "is-long-lived": old.is_long_lived,
            "enforce-single-zone-scheduling": False,
        },
        "status": {**_NEW_STATUS, **_section(source, "status")},
    }


_NEW_STATUS = {"phase": "", "last-transition-time": None}


class _UnitV1Alpha1(msgspec.Struct, frozen=True):
    count: int
    cpu: str
    memory: str
    gpu: str | None = None


class _DemandSpecV1Alpha1(msgspec.Struct, frozen=True, rename="kebab"):
    units: tuple[_UnitV1Alpha1, ...] = ()
    instance_group: str = ""
    is_long_lived: bool = False


def _section(source: Object, key: str) -> Object:
    """A map within a map; absent and ``null`` are empty."""
    value = source.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConversionError(f"{key} must be an object, found {type(value).__name__}")
    return value


_CONVERSIONS: dict[tuple[str, str, str], Callable[[Object], Object]] = {
    (reservations.KIND, reservations.V1BETA2, reservations.V1BETA1): _reservation_to_v1beta1,
    (reservations.KIND, reservations.V1BETA1, reservations.V1BETA2): _reservation_to_v1beta2,
    (demands.KIND, demands.V1ALPHA2, demands.V1ALPHA1): _demand_to_v1alpha1,
    (demands.KIND, demands.V1ALPHA1, demands.V1ALPHA2): _demand_to_v1alpha2,
}
"""(kind, from, to) → what to do"""
