"""Every metric and label that an alert or a panel asks for is one that Muster exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from muster.control.metrics import Metrics
from muster.scheduling.model import Mode, Phase, Role

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "muster-alerts.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana" / "muster.json").read_text())

TARGET_LABELS = {"job", "instance", "namespace", "pod"}
"""Given by Prometheus to whatever it scrapes from a pod."""
KUBERNETES = {"apiserver_admission_webhook_fail_open_count": {"name", "type"}}
"""Of kube-apiserver (staging/src/k8s.io/apiserver/pkg/admission/metrics); seen there by the tests on the real one."""
PROCESS = {"process_cpu_seconds_total": set(), "process_resident_memory_bytes": set()}
"""Of prometheus_client's ProcessCollector."""
VALUES = {
    ("muster_gangs", "phase"): set(Phase),
    ("muster_admissions_total", "role"): set(Role),
    ("muster_admissions_total", "answer"): {*Mode, "gate", "untouched"},
}


def exported() -> dict[str, set[str]]:
    """Labels per series name."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            kind = metric._type
            name = metric._name
            if kind == "counter":
                found[f"{name}_total"] = labels
            elif kind == "histogram":
                found |= {f"{name}_bucket": {*labels, "le"}, f"{name}_count": labels, f"{name}_sum": labels}
            else:
                found[name] = labels
    return found | {"muster_build_info": {"version"}} | KUBERNETES | PROCESS


def selectors(query: str) -> Iterator[Any]:
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(parsed(query), visit)
    yield from found


def grouped(query: str) -> Iterator[tuple[set[str], set[str]]]:
    """For each aggregation: the labels it names, and the series under it."""
    found: list[tuple[set[str], set[str]]] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.append((set(node.modifier.labels), {one.name for one in selectors(node.prettify())}))

    promql_parser.walk(parsed(query), visit)
    yield from found


def parsed(query: str) -> Any:
    """As Grafana sends it, with its own variables filled in."""
    return promql_parser.parse(query.replace("$__rate_interval", "5m").replace("$namespace", "muster-system"))


def queries() -> list[Any]:
    found = [pytest.param(rule["expr"], id=rule["alert"]) for group in ALERTS["groups"] for rule in group["rules"]]
    for panel in DASHBOARD["panels"]:
        found += [pytest.param(one["expr"], id=f"{panel['title']}-{one['refId']}") for one in panel.get("targets", [])]
    return found


def unknown(query: str) -> list[str]:
    known, problems = exported(), []
    for selector in selectors(query):
        if selector.name not in known:
            problems.append(f"no metric {selector.name}")
            continue
        labels = known[selector.name] | TARGET_LABELS
        for matcher in selector.matchers.matchers:
            if matcher.name not in labels:
                problems.append(f"{selector.name} has no label {matcher.name}")
            allowed = VALUES.get((selector.name, matcher.name))
            if allowed is not None and matcher.value not in allowed:
                problems.append(f"{matcher.name} of {selector.name} is never {matcher.value}")
    for labels, names in grouped(query):
        here = set().union(*(known.get(name, set()) for name in names)) | TARGET_LABELS
        problems += [f"nothing below has a label {label}" for label in labels - here]
    return problems


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_only_for_what_is_exported(query: str) -> None:
    assert unknown(query) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("muster_gang", "no metric muster_gang"),
        ('muster_gangs{fase="Pending"}', "muster_gangs has no label fase"),
        ('muster_gangs{phase="Waiting"}', "phase of muster_gangs is never Waiting"),
        ("sum by (pool) (muster_gangs)", "nothing below has a label pool"),
    ],
)
def test_the_check_would_notice(query: str, said: str) -> None:
    assert unknown(query) == [said]


def test_every_metric_of_muster_is_watched_by_somebody() -> None:
    used = {selector.name for query in queries() for selector in selectors(query.values[0])}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("muster_")}
    assert {name for name in families if not any(one.startswith(name) for one in used)} == set()


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
            assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]


def test_the_service_exports_what_prometheus_calls_process_metrics() -> None:
    text = Metrics().render().decode()
    for name in PROCESS:
        assert f"\n{name} " in text


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
