"""The chart's files that are written from elsewhere are up to date; values, schema and documentation agree."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from tools import chart

from muster.control.config import ServeConfig

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((chart.CHART / "values.yaml").read_text())


@pytest.mark.parametrize("path", chart.parts(), ids=lambda path: path.name)
def test_what_has_its_source_elsewhere_is_up_to_date(path: Path) -> None:
    assert path.read_text() == chart.parts()[path], f"run `make chart`: {path.relative_to(ROOT)} is out of date"


def test_the_chart_has_the_version_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    described = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert (described["version"], described["appVersion"]) == (package, package)


def test_the_defaults_keep_to_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(DEFAULTS)


def leaves(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Values that are not themselves a group of named values."""
    for name, value in values.items():
        inner = schema["properties"][name]
        if isinstance(value, dict) and "properties" in inner and name not in ("resources", "queues"):
            yield from leaves(value, inner, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_every_value_says_in_a_comment_what_it_means() -> None:
    assert list(leaves(DEFAULTS, SCHEMA)) == [value.name for value in chart.values()]


def test_the_schema_knows_no_value_that_has_no_default() -> None:
    assert SCHEMA["properties"].keys() - {"global"} == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"replicas": 0}, "replicas"),
        ({"replica": 2}, ""),
        ({"image": {"digest": "sha256:abc"}}, "image.digest"),
        ({"certificates": {"source": "vault"}}, "certificates.source"),
        ({"config": {"scheduling": {"paker": "x"}}}, "config.scheduling"),
        ({"config": {"webhook": {"timeoutSeconds": 99}}}, "config.webhook.timeoutSeconds"),
        ({"queues": {"queues": [{"name": "a", "weight": 0}]}}, "queues.queues.0.weight"),
        ({"networkPolicy": {"apiServerPorts": []}}, "networkPolicy.apiServerPorts"),
    ],
)
def test_a_mistake_in_the_values_is_found_where_it_is(change: dict[str, Any], where: str) -> None:
    [error] = jsonschema.Draft7Validator(SCHEMA).iter_errors(change)
    assert ".".join(map(str, error.absolute_path)) == where


SET_BY_THE_INSTALLATION = ("namespace", "kubernetes.", "webhook.host", "webhook.port", "webhook.url", "webhook.service")


def keys(section: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        name = f"{path}{field.encode_name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, f"{name}.")
        else:
            yield name


def test_every_key_of_the_configuration_is_in_the_documentation() -> None:
    told = (ROOT / "docs" / "install.md").read_text()
    wanted = [key for key in keys(ServeConfig) if not key.startswith((*SET_BY_THE_INSTALLATION, "management."))]
    assert len(wanted) > 20
    missing = [key for key in wanted if not key.startswith("webhook.certificates.") and f"`{key}`" not in told]
    assert missing == []
