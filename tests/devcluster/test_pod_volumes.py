"""Volumes become files as the kubelet makes them."""

import base64
from typing import Any

import pytest

from muster.devcluster.volumes import (
    ObjectKey,
    Sources,
    TokenKey,
    UnsupportedVolumeError,
    contents,
    field,
    files_of,
    needed_objects,
    needed_tokens,
)

POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "u",
        "labels": {"b": "2", "a": "1"},
        "annotations": {"x/y": "z"},
    },
    "spec": {"nodeName": "node-1", "containers": [], "serviceAccountName": "spark"},
    "status": {"podIP": "127.9.9.9", "hostIP": "127.0.0.1"},
}
# As the API server's ServiceAccount admission adds it
API_ACCESS = {
    "name": "kube-api-access-1",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": [{"fieldRef": {"fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
        ]
    },
}


def test_a_config_map_gives_all_its_keys_or_those_asked_for() -> None:
    sources = Sources({("ConfigMap", "c"): {"a": b"1", "b": b"2"}})
    assert files_of({"name": "v", "configMap": {"name": "c"}}, POD, sources) == {"a": b"1", "b": b"2"}
    some = {"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "sub/one"}]}}
    assert files_of(some, POD, sources) == {"sub/one": b"1"}


def test_a_key_that_is_missing_is_an_error_unless_optional() -> None:
    sources = Sources({("ConfigMap", "c"): {}})
    source: dict[str, Any] = {"name": "c", "items": [{"key": "a", "path": "a"}]}
    with pytest.raises(KeyError, match="has no key 'a'"):
        files_of({"name": "v", "configMap": source}, POD, sources)
    assert files_of({"name": "v", "configMap": source | {"optional": True}}, POD, sources) == {}


def test_secrets_and_binary_data_are_decoded() -> None:
    encoded = base64.b64encode(b"\x00\x01").decode()
    assert contents("Secret", {"data": {"k": encoded}}) == {"k": b"\x00\x01"}
    assert contents("ConfigMap", {"data": {"t": "x"}, "binaryData": {"k": encoded}}) == {"t": b"x", "k": b"\x00\x01"}
    assert contents("ConfigMap", {}) == {}


def test_the_volume_of_a_service_account_holds_token_certificate_and_namespace() -> None:
    pod = POD | {"spec": POD["spec"] | {"volumes": [API_ACCESS]}}
    assert needed_objects(pod) == [ObjectKey("ConfigMap", "kube-root-ca.crt")]
    assert needed_tokens(pod) == [TokenKey("", 3607)]
    sources = Sources({("ConfigMap", "kube-root-ca.crt"): {"ca.crt": b"CA"}}, {TokenKey("", 3607): b"secret"})
    assert files_of(API_ACCESS, pod, sources) == {"token": b"secret", "ca.crt": b"CA", "namespace": b"n"}


def test_objects_named_by_the_environment_are_needed_too() -> None:
    container = {
        "envFrom": [{"secretRef": {"name": "s", "optional": True}}],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
    }
    pod = POD | {"spec": {"containers": [container]}}
    assert needed_objects(pod) == [ObjectKey("ConfigMap", "c"), ObjectKey("Secret", "s", True)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.labels['a']", "1"),
        ("metadata.labels", 'a="1"\nb="2"'),
        ("metadata.annotations['x/y']", "z"),
        ("metadata.annotations['absent']", ""),
        ("spec.nodeName", "node-1"),
        ("status.podIP", "127.9.9.9"),
    ],
)
def test_fields_of_the_pod(path: str, expected: str) -> None:
    assert field(POD, path) == expected


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"spec\.nothing"):
        field(POD, "spec.nothing")


def test_empty_and_host_folders_hold_no_files_of_ours() -> None:
    assert files_of({"name": "v", "emptyDir": {}}, POD, Sources()) is None
    assert files_of({"name": "v", "hostPath": {"path": "/data"}}, POD, Sources()) is None


def test_other_kinds_of_volume_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedVolumeError, match="'v' is of kind nfs"):
        files_of({"name": "v", "nfs": {"server": "x"}}, POD, Sources())


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b"])
def test_no_file_leaves_its_volume(path: str) -> None:
    sources = Sources({("ConfigMap", "c"): {"a": b"1"}})
    volume = {"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": path}]}}
    with pytest.raises(UnsupportedVolumeError, match="leads out"):
        files_of(volume, POD, sources)
