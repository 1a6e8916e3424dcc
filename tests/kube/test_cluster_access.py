"""Which cluster is meant, with whose credentials, and what people are told when that cannot be found out."""

from __future__ import annotations

import base64
import json
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from muster.kube.certificates import make_authority, make_serving
from muster.kube.client import Client
from muster.kube.config import ClusterAccess, load_access
from muster.kube.credentials import AccessError, FixedHeader, TokenFile
from muster.kube.errors import ApiError
from muster.kube.kinds import NODES

AUTHORITY = make_authority(datetime.now(UTC), timedelta(days=1))
CLIENT = make_serving(AUTHORITY, ["client"], datetime.now(UTC), timedelta(days=1))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def kubeconfig(path: Path, *, user: dict | None = None, cluster: dict | None = None, name: str = "dev", **top) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": f"{name}-c", "cluster": {"server": f"https://{name}.example:6443/", **(cluster or {})}}],
        "users": [{"name": f"{name}-u", "user": user or {"token": "s3cr3t"}}],
        "contexts": [{"name": name, "context": {"cluster": f"{name}-c", "user": f"{name}-u", "namespace": "spark"}}],
        **top,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def plugin(path: Path, program: str) -> str:
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{program}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"./{path.name}"


def exec_user(command: str, **more) -> dict:
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": command,
            "interactiveMode": "Never",
            **more,
        }
    }


async def test_a_kubeconfig_gives_server_namespace_and_token(tmp_path):
    path = kubeconfig(tmp_path / "config", cluster={"proxy-url": "http://proxy:3128", "tls-server-name": "api"})
    access = load_access(path)
    assert (access.server, access.namespace) == ("https://dev.example:6443", "spark")
    assert (access.proxy, access.tls_server_name) == ("http://proxy:3128", "api")
    assert await access.credentials.authorization() == "Bearer s3cr3t"
    assert access.source == f"context dev of {path}"
    assert "s3cr3t" not in repr(access)


def test_the_authority_of_the_cluster_is_the_one_trusted(tmp_path):
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate)
    for cluster in ({"certificate-authority": "ca.crt"}, {"certificate-authority-data": b64(AUTHORITY.certificate)}):
        tls = load_access(kubeconfig(tmp_path / "config", cluster=cluster)).tls
        assert tls is not None
        assert tls.verify_mode is ssl.CERT_REQUIRED
        assert len(tls.get_ca_certs()) == 1, "no authority but the cluster's"


def test_verification_is_left_out_only_when_asked(tmp_path):
    tls = load_access(kubeconfig(tmp_path / "config", cluster={"insecure-skip-tls-verify": True})).tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_NONE, False)


def test_plain_http_has_no_tls(tmp_path):
    assert load_access(kubeconfig(tmp_path / "config", cluster={"server": "http://127.0.0.1:8001"})).tls is None


async def test_a_client_certificate_is_loaded_from_data_or_files(tmp_path):
    (tmp_path / "c.crt").write_bytes(CLIENT.certificate)
    (tmp_path / "c.key").write_bytes(CLIENT.key)
    files = {"client-certificate": "c.crt", "client-key": "c.key"}
    data = {"client-certificate-data": b64(CLIENT.certificate), "client-key-data": b64(CLIENT.key)}
    for user in (files, data):
        access = load_access(kubeconfig(tmp_path / "config", user=user))
        assert await access.credentials.authorization() is None


async def test_name_and_password_become_a_basic_header(tmp_path):
    access = load_access(kubeconfig(tmp_path / "config", user={"username": "Aladdin", "password": "open sesame"}))
    assert await access.credentials.authorization() == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 §2


def test_several_files_are_merged_and_the_first_to_define_a_name_wins(tmp_path):
    first = kubeconfig(tmp_path / "first", name="dev", cluster={"server": "https://first:1"})
    second = kubeconfig(tmp_path / "second", name="dev", cluster={"server": "https://second:2"})
    third = kubeconfig(tmp_path / "third", name="prod")
    environment = {"KUBECONFIG": f"{first}:{tmp_path / 'missing'}:{second}:{third}"}
    assert load_access(environment=environment).server == "https://first:1"
    assert load_access(context="prod", environment=environment).server == "https://prod.example:6443"


def in_cluster(folder: Path) -> dict[str, str]:
    (folder / "token").write_text("pod-token\n")
    (folder / "ca.crt").write_bytes(AUTHORITY.certificate)
    (folder / "namespace").write_text("muster-system")
    return {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


async def test_a_pod_uses_its_service_account(tmp_path):
    access = load_access(environment=in_cluster(tmp_path), service_account=tmp_path)
    assert (access.server, access.namespace) == ("https://10.96.0.1:443", "muster-system")
    assert await access.credentials.authorization() == "Bearer pod-token"


def test_an_ipv6_cluster_is_addressed_in_brackets(tmp_path):
    environment = in_cluster(tmp_path) | {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert load_access(environment=environment, service_account=tmp_path).server == "https://[fd00::1]:443"


def test_what_is_named_comes_before_the_environment_and_that_before_the_pod(tmp_path):
    environment = in_cluster(tmp_path) | {"KUBECONFIG": str(kubeconfig(tmp_path / "env", name="env"))}
    named = kubeconfig(tmp_path / "named", name="named")
    assert load_access(named, environment=environment, service_account=tmp_path).server == "https://named.example:6443"
    assert load_access(environment=environment, service_account=tmp_path).server == "https://env.example:6443"


async def test_a_token_file_is_read_again_after_a_minute_or_when_it_is_rejected(tmp_path, clock):
    token = tmp_path / "token"
    token.write_text("one")
    credentials = TokenFile(token, clock)
    assert await credentials.authorization() == "Bearer one"
    token.write_text("two")
    clock.now += 59
    assert await credentials.authorization() == "Bearer one"
    clock.now += 1
    assert await credentials.authorization() == "Bearer two"
    token.write_text("three")
    credentials.rejected()
    assert await credentials.authorization() == "Bearer three"


async def test_a_rejected_token_is_read_again_and_the_call_repeated(api, clock, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")

    async def reject(request):
        token.write_text("new")
        return await api.status(401, "Unauthorized")(request)

    api.on("GET", "/api/v1/nodes/n", reject, api.json({"metadata": {"name": "n"}}))
    async with Client(ClusterAccess(api.url, "test", credentials=TokenFile(token, clock)), clock=clock) as client:
        await client.get(NODES, "n")
    assert [asked.headers["Authorization"] for asked in api.asked] == ["Bearer old", "Bearer new"]


async def test_a_token_file_that_vanished_fails_the_call_and_nothing_else(api, clock, tmp_path):
    access = ClusterAccess(api.url, "test", credentials=TokenFile(tmp_path / "token", clock))
    async with Client(access, clock=clock) as client:
        with pytest.raises(ApiError, match=r"token file .* cannot be read"):
            await client.get(NODES, "n")


COUNTING = """
count = int(open(os.environ["COUNT"]).read()) + 1
open(os.environ["COUNT"], "w").write(str(count))
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": f"token-{count}", "expirationTimestamp": os.environ["EXPIRES"]}}))
"""


async def test_a_plugin_is_asked_once_until_a_minute_before_its_token_expires(tmp_path, clock):
    (tmp_path / "count").write_text("0")
    environment = [
        {"name": "COUNT", "value": str(tmp_path / "count")},
        {"name": "EXPIRES", "value": "2027-01-15T08:10:00Z"},  # ten minutes after the clock's beginning
    ]
    command = plugin(tmp_path / "login", COUNTING)
    credentials = load_access(
        kubeconfig(tmp_path / "config", user=exec_user(command, env=environment)), clock=clock
    ).credentials
    assert await credentials.authorization() == "Bearer token-1"
    clock.now += 539
    assert await credentials.authorization() == "Bearer token-1"
    clock.now += 2
    assert await credentials.authorization() == "Bearer token-2"
    credentials.rejected()
    assert await credentials.authorization() == "Bearer token-3"


async def test_a_plugin_is_told_of_the_cluster_when_it_wants_to(tmp_path):
    program = """
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential",
                  "status": {"token": info["spec"]["cluster"]["server"] + "?" + sys.argv[1]}}))
"""
    user = exec_user(plugin(tmp_path / "login", program), args=["me"], provideClusterInfo=True)
    credentials = load_access(kubeconfig(tmp_path / "config", user=user)).credentials
    assert await credentials.authorization() == "Bearer https://dev.example:6443/?me"


async def test_a_plugin_may_give_a_client_certificate_instead_of_a_token(tmp_path):
    status = {"clientCertificateData": CLIENT.certificate.decode(), "clientKeyData": CLIENT.key.decode()}
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    (tmp_path / "answer").write_text(json.dumps(answer))
    command = plugin(tmp_path / "login", f"print(open({str(tmp_path / 'answer')!r}).read())")
    credentials = load_access(kubeconfig(tmp_path / "config", user=exec_user(command))).credentials
    assert await credentials.authorization() is None


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('please log in')", "did not print an ExecCredential"),
        ("sys.exit('session expired, run cloud login')", "exit code 1: session expired, run cloud login"),
        (
            "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'status': {}}))",
            "neither a token nor a client certificate",
        ),
        (
            "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1beta1', 'status': {'token': 't'}}))",
            "answered with apiVersion client.authentication.k8s.io/v1beta1",
        ),
    ],
)
async def test_a_plugin_that_fails_is_named_with_what_it_said(tmp_path, program, says):
    user = exec_user(plugin(tmp_path / "login", program))
    credentials = load_access(kubeconfig(tmp_path / "config", user=user)).credentials
    with pytest.raises(AccessError, match=says):
        await credentials.authorization()


async def test_a_plugin_that_is_not_installed_is_named_with_its_hint(tmp_path):
    user = exec_user("no-such-cloud-login", installHint="get it from the cloud")
    credentials = load_access(kubeconfig(tmp_path / "config", user=user)).credentials
    with pytest.raises(AccessError, match=r"no-such-cloud-login cannot be run: .*; get it from the cloud"):
        await credentials.authorization()


def broken(tmp_path: Path, case: str) -> Path:
    path = tmp_path / "config"
    match case:
        case "missing file":
            return path
        case "no yaml":
            path.write_text("token: s3cr3t: [")
        case "a list":
            path.write_text("- s3cr3t")
        case "no current context":
            kubeconfig(path, **{"current-context": ""})
        case "unknown cluster":
            kubeconfig(path, clusters=[{"name": "other", "cluster": {"server": "https://o"}}])
        case "unknown user":
            kubeconfig(path, users=[])
        case "nameless entry":
            kubeconfig(path, users=[{"user": {"token": "s3cr3t"}}])
        case "wrong type":
            kubeconfig(path, user={"token": ["s3cr3t"]})
        case "bad authority":
            kubeconfig(path, cluster={"certificate-authority-data": b64(b"s3cr3t")})
        case "half a pair":
            kubeconfig(path, user={"client-certificate-data": b64(CLIENT.certificate)})
        case "not a pair":
            kubeconfig(path, user={"client-certificate-data": b64(b"x"), "client-key-data": b64(b"s3cr3t")})
        case "old plugin":
            kubeconfig(path, user=exec_user("x", apiVersion="client.authentication.k8s.io/v1alpha1"))
        case "auth provider":
            kubeconfig(path, user={"auth-provider": {"name": "gcp"}})
    return path


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing file", "No such file"),
        ("no yaml", "is not YAML"),
        ("a list", "expected a mapping"),
        ("no current context", "no current-context; name one of its contexts: dev"),
        ("unknown cluster", "context dev names the cluster dev-c, which is not defined; there are: other"),
        ("unknown user", "context dev names the user dev-u, which is not defined; there are: none"),
        ("nameless entry", "every entry of users needs a name"),
        ("wrong type", "Expected `str"),
        ("bad authority", "certificate-authority-data is not a readable PEM"),
        ("half a pair", "belong together, one is missing"),
        ("not a pair", "not a matching pair"),
        ("old plugin", "apiVersion client.authentication.k8s.io/v1alpha1 is not supported"),
        ("auth provider", "use an exec plugin"),
    ],
)
def test_what_is_wrong_is_said_with_its_file_and_without_its_secrets(tmp_path, case, says):
    path = broken(tmp_path, case)
    with pytest.raises(AccessError, match=says) as caught:
        load_access(path)
    assert str(path) in str(caught.value) or case == "old plugin"
    assert "s3cr3t" not in str(caught.value)


def test_an_unknown_context_is_told_with_those_there_are(tmp_path):
    with pytest.raises(AccessError, match="has no context prod; there are: dev"):
        load_access(kubeconfig(tmp_path / "config"), "prod")


def test_nothing_to_go_by_is_told_with_everything_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AccessError, match=r"KUBECONFIG is not set.*\.kube/config does not exist"):
        load_access(environment={}, service_account=tmp_path)


def test_a_header_that_is_fixed_shows_no_secret():
    assert "s3cr3t" not in repr(FixedHeader.bearer("s3cr3t"))
