"""muster.yaml: what is accepted, and what each mistake is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from muster.control.config import Certificates, ConfigError, ServeConfig, Webhook, load, parse, parse_duration
from muster.control.metrics import Metrics
from muster.control.serve import Service
from muster.control.settings import certificate_lifetimes
from muster.kube.client import Client
from muster.kube.config import ClusterAccess


def test_no_file_gives_the_defaults() -> None:
    assert load(None) == ServeConfig()


def test_a_file_is_read_in_camel_case(tmp_path: Path) -> None:
    file = tmp_path / "muster.yaml"
    file.write_text(
        "scheduling:\n  packer: distribute-evenly\n  enforceAfter: 5m\n"
        "  driverPriority: {label: tier, values: [gold]}\nwebhook: {port: 9443}\n"
    )
    config = load(file)
    assert config.scheduling.packer == "distribute-evenly"
    assert config.scheduling.driver_priority is not None
    assert config.scheduling.driver_priority.values == ("gold",)
    assert config.webhook.port == 9443


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schedulng": {}}, ["unknown key schedulng", "scheduling", "webhook"]),
        ({"scheduling": {"paker": "x"}}, ["scheduling.paker", "'x'", "packer"]),
        ({"webhook": {"port": 99999}}, ["webhook.port", "99999", "65535"]),
        ({"logging": {"format": "xml"}}, ["logging.format", "'xml'", "json, console"]),
        ({"scheduling": {"enforceAfter": "5 minutes"}}, ["scheduling.enforceAfter", "5 minutes", "30s"]),
        ({"scheduling": {"enforceAfterByPool": {"etl": "soon"}}}, ["enforceAfterByPool.etl", "soon"]),
        ({"lease": 3}, ["lease", "3"]),
    ],
)
def test_a_mistake_names_the_key_the_value_and_what_is_allowed(document: dict[str, object], said: list[str]) -> None:
    with pytest.raises(ConfigError) as failure:
        parse(document, "muster.yaml")
    assert str(failure.value).startswith("muster.yaml: ")
    for words in said:
        assert words in str(failure.value)


@pytest.mark.parametrize("text", ["{", "- a\n- b\n", "\x00"])
def test_a_file_that_is_no_mapping_is_one_line_of_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "muster.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as failure:
        load(file)
    assert str(failure.value).startswith(str(file))
    assert "\n" not in str(failure.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h30m", 5400), ("0s", 0), ("1.5s", 1.5), ("1h2m3s", 3723)]
)
def test_durations_are_written_as_kubernetes_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "1d", "5m5h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


def test_certificates_last_as_long_as_they_are_told_and_an_authority_settles_for_four_checks() -> None:
    short = Certificates(lifetime="24h", authority_lifetime="240h", check_interval="1m")
    lifetimes = certificate_lifetimes(short)
    assert (lifetimes.serving, lifetimes.authority) == (timedelta(days=1), timedelta(days=10))
    assert lifetimes.settling == timedelta(minutes=4)


@pytest.mark.parametrize(
    ("certificates", "said"),
    [
        (Certificates(cert_file="tls.crt"), "certFile and keyFile belong together"),
        (Certificates(ca_file="ca.crt"), "caFile needs both"),
        (Certificates(lifetime="5m"), "checkInterval = 30s, lifetime = 5m, authorityLifetime = 87600h"),
        (Certificates(lifetime="8760h", authority_lifetime="24h"), "not longer than the authority's"),
        (Certificates(check_interval="0s"), "checkInterval = 0s"),
    ],
)
async def test_certificates_that_cannot_be_served_end_the_start(certificates: Certificates, said: str) -> None:
    config = ServeConfig(webhook=Webhook(certificates=certificates))
    client = Client(ClusterAccess("http://127.0.0.1:1", "nowhere"))
    with pytest.raises(ConfigError) as failure:
        Service(config, client, Metrics(), "replica")
    assert said in str(failure.value)
