"""Request bodies as kubectl v1.32 sent them (recorded from the binary)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from muster.devcluster.errors import ApiError
from muster.devcluster.protobuf import decode_object

RECORDED: list[tuple[str, str, dict[str, Any]]] = [
    (
        "create configmap a --from-literal=x=y",
        "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEhsKEQoBYRIAGgAiACoAMgA4AEIAEgYKAXgSAXkaACIA",
        {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"x": "y"}},
    ),
    (
        "create secret generic s --from-literal=k=v",
        "azhzAAoMCgJ2MRIGU2VjcmV0Eh0KEQoBcxIAGgAiACoAMgA4AEIAEgYKAWsSAXYaABoAIgA=",
        {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"k": "dg=="}},
    ),
    (
        "create serviceaccount bob",
        "azhzAAoUCgJ2MRIOU2VydmljZUFjY291bnQSFQoTCgNib2ISABoAIgAqADIAOABCABoAIgA=",
        {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "bob"}},
    ),
    (
        "create token bob --duration=1h",
        "azhzAAooChhhdXRoZW50aWNhdGlvbi5rOHMuaW8vdjESDFRva2VuUmVxdWVzdBIdChAKABIAGgAiACoAMgA4AEIAEgMgkBwaBAoAEgAaACIA",
        {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 3600}},
    ),
    (
        "auth can-i create pods",
        "azhzAAoyChdhdXRob3JpemF0aW9uLms4cy5pby92MRIXU2VsZlN1YmplY3RBY2Nlc3NSZXZpZXcSPwoQCgASABoAIgAqADIAOABCABIhCh8KB2Rl"
        "ZmF1bHQSBmNyZWF0ZRoAIgAqBHBvZHMyADoAGggIABIAGgAgABoAIgA=",
        {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "spec": {"resourceAttributes": {"namespace": "default", "verb": "create", "resource": "pods"}},
        },
    ),
    (
        "create namespace foo",
        "azhzAAoPCgJ2MRIJTmFtZXNwYWNlEhsKEwoDZm9vEgAaACIAKgAyADgAQgASABoCCgAaACIA",
        {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "foo"}},
    ),
]


@pytest.mark.parametrize(("command", "body", "expected"), RECORDED, ids=[entry[0] for entry in RECORDED])
def test_what_kubectl_sends_is_understood(command: str, body: str, expected: dict[str, Any]) -> None:
    assert decode_object(base64.b64decode(body)) == expected


@pytest.mark.parametrize("length", [0, 3, 5, 10, 20, 25, 40, 45])
def test_a_body_that_is_cut_short_is_a_bad_request_or_an_unknown_kind(length: int) -> None:
    whole = base64.b64decode(RECORDED[0][1])
    with pytest.raises(ApiError) as refused:
        decode_object(whole[:length])
    assert refused.value.code in (400, 415)


def test_a_kind_without_a_table_is_an_unsupported_media_type() -> None:
    envelope = b"k8s\x00\x0a\x0b\x0a\x02v1\x12\x05Other"
    with pytest.raises(ApiError) as refused:
        decode_object(envelope)
    assert refused.value.code == 415
    assert "Other" in refused.value.message
