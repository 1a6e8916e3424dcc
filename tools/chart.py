"""Writes the parts of the Helm chart that have their source elsewhere; ``make chart``. A test compares them.

The custom resources and roles come from ``muster.kube``, the schemas of ``config`` and ``queues`` from
``muster.control``, the table of values from ``values.yaml``, the alerts and the dashboard from ``deploy/``, since a
chart cannot read files outside its folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from muster.control.config import ServeConfig
from muster.control.queue_documents import file_schema
from muster.kube.manifests import InstallOptions, manifests, to_yaml
from muster.kube.resources import GROUP

DEPLOY = Path(__file__).parents[1] / "deploy"
CHART = DEPLOY / "charts" / "muster"

_NOTICE = "{{/* Written by `make chart` from src/muster: do not edit */}}\n"
_TABLE_FOLLOWS = "<!-- written by `make chart` from values.yaml -->\n"
_ROLES = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_OWN_CERTIFICATE = '{{- if not (include "muster.certManager" .) }}\n'
_END = "{{- end }}\n"
_NAMESPACE = "release-namespace"

_LABELS = "  labels:\n    app.kubernetes.io/name: muster\n"
_RELEASE_LABELS = '  labels:\n    {{- include "muster.labels" . | nindent 4 }}\n'


def parts() -> dict[Path, str]:
    """What each of the files should hold."""
    return {
        CHART / "templates" / "crd-gangs.yaml": _definition("gangs"),
        CHART / "templates" / "crd-queues.yaml": _definition("queues"),
        CHART / "templates" / "roles.yaml": _roles(),
        CHART / "values.schema.json": _values_schema(),
        CHART / "README.md": _readme(),
        CHART / "files" / "muster-alerts.yaml": (DEPLOY / "prometheus" / "muster-alerts.yaml").read_text(),
        CHART / "files" / "muster.json": (DEPLOY / "grafana" / "muster.json").read_text(),
    }


def _definition(plural: str) -> str:
    """As a template and not in ``crds/``: what is there, Helm never upgrades."""
    [definition] = [one for one in manifests() if one["metadata"]["name"] == f"{plural}.{GROUP}"]
    keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    text = to_yaml([definition]).replace(_LABELS, _RELEASE_LABELS + keep)
    return f"{_NOTICE}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"


def _roles() -> str:
    documents = []
    for manifest in manifests(InstallOptions(namespace=_NAMESPACE)):
        if manifest["kind"] not in _ROLES:
            continue
        text = to_yaml([manifest])
        for rule in manifest.get("rules", []):
            block = yaml.safe_dump([rule], sort_keys=False)
            # another's certificate needs no Secret of ours, and its authority is not for us to write
            if rule["resources"] == ["mutatingwebhookconfigurations"]:
                patch = "  - patch\n"
                text = text.replace(block, block.replace(patch, _OWN_CERTIFICATE + patch + _END))
            if rule["resources"] == ["secrets"]:
                text = text.replace(block, _OWN_CERTIFICATE + block + _END)
        documents.append(text)
    whole = "".join(documents).replace(_LABELS, _RELEASE_LABELS)
    return _NOTICE + whole.replace(_NAMESPACE, "{{ .Release.Namespace }}")


def _values_schema() -> str:
    """The hand-written schema, with the definitions of ``config`` and ``queues`` brought up to date."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    schema["$defs"] = msgspec.json.schema(ServeConfig)["$defs"]
    schema["properties"]["queues"] = file_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _readme() -> str:
    """The hand-written part, and the table of values."""
    head, mark, _ = (CHART / "README.md").read_text().partition(_TABLE_FOLLOWS)
    rows = [f"| `{value.name}` | {value.meaning} | {value.default} |" for value in values()]
    return "\n".join([head + mark, "", "| value | meaning | default |", "| --- | --- | --- |", *rows, ""])


class Value(NamedTuple):
    name: str
    """With dots: ``image.tag``."""
    meaning: str
    default: str
    """As it is shown: JSON in backticks."""


def values() -> list[Value]:
    """Each value of ``values.yaml`` that a comment ``# -- meaning`` stands before, as helm-docs has it."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    found: list[Value] = []
    path: list[str] = []
    meaning = ""
    for line in text.splitlines():
        if comment := re.fullmatch(r" *# -- (.*)", line):
            meaning = comment.group(1)
        elif key := re.match(r"( *)(\w+):", line):
            path[len(key.group(1)) // 2 :] = [key.group(2)]
            if meaning:
                default: Any = defaults
                for name in path:
                    default = default[name]
                found.append(Value(".".join(path), meaning, f"`{json.dumps(default)}`"))
            meaning = ""
    return found


def main() -> None:
    for path, text in parts().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
