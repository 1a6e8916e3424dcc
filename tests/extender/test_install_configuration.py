"""``install.yml`` of the archived scheduler: what is accepted as it is, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.cluster.ordering import LabelPriority
from muster.control.documents import ConfigError
from muster.control.extender.configuration import INEFFECTIVE, load, parse, parse_go_duration, scheduler_config

# the shape of the archived project's examples, with every key it knew
FULL = """
product-name: spark-scheduler
server:
  address: 0.0.0.0
  port: 8483
  management-port: 8484
  context-path: /spark-scheduler
  cert-file: var/security/tls.crt
  key-file: var/security/tls.key
  client-ca-files: [var/security/ca.crt]
logging:
  level: INFO
  output: STDOUT
health-checks:
  shared-secret: s3cr3t
use-console-log: true
metrics-emit-frequency: 60s
trace-sample-rate: 0.01
management-trace-sample-rate: 0
kube-config: var/conf/kube-config
fifo: true
fifo-config:
  default-enforce-after-pod-age: 5m
  enforce-after-pod-age-by-instance-group:
    batch: 1h2m3.5s
    interactive: 300ms
qps: 20
burst: 40
binpack: az-aware-tightly-pack
should-schedule-dynamically-allocated-executors-in-same-az: true
instance-group-label: resource_channel
async-client-config:
  max-retry-count: 9
unschedulable-pod-timeout-duration: 15m
use-experimental-host-priorities: true
driver-prioritized-node-label:
  label-name: tier
  label-values-descending-priority: [on-demand, spot]
executor-prioritized-node-label:
  label-name: tier
  label-values-descending-priority: [spot]
resource-reservation-crd-annotations:
  team: data
webhook-service-config:
  namespace: spark
  service-name: spark-scheduler-conversion-webhook
  service-port: 443
"""
TLS: dict[str, Any] = {"server": {"cert-file": "a", "key-file": "b"}}


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "install.yml"
    file.write_text(FULL)
    loaded = load(file)
    install = loaded.install
    assert (install.server.port, install.server.management_port) == (8483, 8484)
    assert install.server.client_ca_files == ("var/security/ca.crt",)
    assert install.async_client_config.max_retry_count == 9
    assert install.should_schedule_dynamically_allocated_executors_in_same_az
    assert install.resource_reservation_crd_annotations == {"team": "data"}
    assert install.webhook_service_config.service_port == 443
    assert (install.unschedulable_after, install.log_level, install.has_webhook) == (900, "info", True)

    config = scheduler_config(install)
    assert config.packer == "az-aware-tightly-pack"
    assert (config.fifo, config.enforce_after) == (True, 300)
    assert config.enforce_after_by_pool == {"batch": 3723.5, "interactive": 0.3}
    assert config.pool_label == "resource_channel"
    assert config.driver_priority == LabelPriority("tier", ("on-demand", "spot"))
    assert config.executor_priority == LabelPriority("tier", ("spot",))


def test_keys_without_effect_are_told_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "install.yml"
    file.write_text(FULL)
    warnings = load(file).warnings
    absent = {"product-version", "use-wrapped-logs", "webhook-service-config.context-path"}
    assert [text.removeprefix(f"{file}: ").split(" has no effect: ")[0] for text in warnings] == [
        key for key in INEFFECTIVE if key not in absent
    ]


def test_an_almost_empty_file_means_the_archived_defaults() -> None:
    loaded = parse(TLS | {"fifo-config": None, "binpack": "", "qps": None}, "install.yml")
    install = loaded.install
    assert (install.binpack, install.fifo, install.instance_group_label) == (
        "distribute-evenly",
        False,
        "resource_channel",
    )
    assert install.async_client_config.max_retry_count == 5
    assert install.unschedulable_after == 600
    assert (install.driver_prioritized_node_label, install.has_webhook) == (None, False)
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"binpak": "tightly-pack"}, ["unknown key binpak", "'tightly-pack'", "binpack", "fifo"]),
        ({"binpack": "tight"}, ["binpack = 'tight'", "distribute-evenly", "single-az-minimal-fragmentation"]),
        ({"fifo": "yes please"}, ["fifo = 'yes please'", "bool"]),
        ({"fifo-config": {"default-enforce-after": "1m"}}, ["fifo-config.default-enforce-after", "'1m'"]),
        ({"fifo-config": {"default-enforce-after-pod-age": "soon"}}, ["default-enforce-after-pod-age", "'soon'", "5m"]),
        ({"fifo-config": {"default-enforce-after-pod-age": "-5m"}}, ["default-enforce-after-pod-age", "negative"]),
        (
            {"fifo-config": {"enforce-after-pod-age-by-instance-group": {"batch": "1d"}}},
            ["enforce-after-pod-age-by-instance-group.batch", "'1d'"],
        ),
        ({"unschedulable-pod-timeout-duration": "10 m"}, ["unschedulable-pod-timeout-duration", "'10 m'"]),
        ({"async-client-config": {"max-retry-count": -1}}, ["async-client-config.max-retry-count", "-1"]),
        ({"async-client-config": {"maxRetryCount": 3}}, ["async-client-config.maxRetryCount", "max-retry-count"]),
        ({"driver-prioritized-node-label": {"name": "x"}}, ["driver-prioritized-node-label.name", "label-name"]),
        ({"server": {"port": 99999}}, ["server.port", "99999", "65535"]),
        ({"server": {"key-file": "b"}}, ["server.cert-file is missing"]),
        ({"server": {**TLS["server"], "context-path": "spark"}}, ["server.context-path", "'spark'"]),
        ({"logging": {"level": "chatty"}}, ["logging.level", "'chatty'", "debug"]),
        ({"webhook-service-config": {"service-name": "s"}}, ["server.client-ca-files is empty", "webhook"]),
    ],
)
def test_a_mistake_names_the_key_the_value_and_what_is_allowed(changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as failure:
        parse(TLS | changes, "install.yml")
    assert str(failure.value).startswith("install.yml: ")
    for words in said:
        assert words in str(failure.value)


@pytest.mark.parametrize("checks", [{"shared-secret": 12345}, {"sharedSecret": "12345"}])
def test_a_secret_is_never_shown(checks: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as failure:
        parse(TLS | {"health-checks": checks}, "install.yml")
    assert "12345" not in str(failure.value)
    assert "12345" not in repr(parse(TLS | {"health-checks": {"shared-secret": "12345"}}, "install.yml"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h2m3.5s", 3723.5),
        ("300ms", 0.3),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("5m5h", 18300),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("1ns", 1e-9),
        ("+2s", 2),
        ("-1m", -60),
        ("0", 0),
        (600_000_000_000, 600),
    ],
)
def test_durations_are_gos(text: str | int, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "1 m", "m1", "--1s", "1s ", "1.2.3s", "١s"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_go_duration(text)


@pytest.mark.parametrize("text", ["0s", "-5m"])
def test_no_time_for_unschedulable_pods_means_ten_minutes(text: str) -> None:
    assert parse(TLS | {"unschedulable-pod-timeout-duration": text}, "x").install.unschedulable_after == 600
