"""From ``Queue`` objects and ``queues.yaml`` to the queues that scheduling knows; which of them are accepted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from muster.cluster.quantity import QuantityError
from muster.cluster.resources import Resources
from muster.control.queue_documents import QueueDocumentError, read_queues
from muster.kube.resources import Quantities, QueueSpec
from muster.queueing.config import (
    Limit,
    Maximum,
    Policy,
    Preemption,
    QueueConfig,
    QueueConfigError,
    Submitters,
)
from muster.queueing.tree import QueueTree

Configs = Mapping[str, QueueConfig]


class Acceptance(msgspec.Struct, frozen=True):
    """Which queues are in force, and why the others are not."""

    queues: Configs = {}
    problems: Mapping[str, str] = {}
    """By queue: what is wrong with its newest version, which is not used."""


def config_of(name: str, spec: QueueSpec) -> QueueConfig:
    """One queue. Raises ``QueueConfigError`` for quantities that are none."""
    submitters = spec.submitters
    return QueueConfig(
        name=name,
        parent=spec.parent,
        node_pools=spec.node_pools,
        policy=Policy(spec.policy.value),
        guaranteed=_resources(name, "guaranteed", spec.guaranteed),
        max=_maximum(name, "max", spec.max),
        weight=spec.weight,
        limits=tuple(
            Limit(limit.users, limit.groups, _maximum(name, f"limits[{index}].max", limit.max), limit.max_applications)
            for index, limit in enumerate(spec.limits)
        ),
        max_applications=spec.max_applications,
        driver_share=spec.driver_share,
        preemption=Preemption(spec.preemption.value),
        min_runtime=float(spec.min_runtime_seconds),
        submitters=Submitters()
        if submitters is None
        else Submitters(submitters.users, submitters.groups, submitters.service_accounts),
    )


def configs_of(specs: Mapping[str, QueueSpec]) -> tuple[dict[str, QueueConfig], dict[str, str]]:
    """The queues of one source, and by name what is wrong with those that are left out."""
    configs, problems = {}, {}
    for name, spec in specs.items():
        try:
            configs[name] = config_of(name, spec)
        except QueueConfigError as error:
            problems[name] = _said(error)
    return configs, problems


def merge(from_file: Mapping[str, QueueSpec], objects: Mapping[str, QueueSpec], previous: Configs) -> Acceptance:
    """Both sources together, as ``accept`` has them. A name that is in both is in neither."""
    configs, problems = configs_of({**from_file, **objects})
    for name in from_file.keys() & objects.keys():
        configs.pop(name, None)
        problems[name] = "is both in queues.yaml and a Queue object; one of them has to go"
    return accept(configs, problems, previous)


def accept(wanted: Configs, problems: Mapping[str, str], previous: Configs) -> Acceptance:
    """The wanted queues, as far as they make a sound tree.

    One that does not fit stays as it was (``previous``), or is not there when it is new; the others are not affected.
    A queue that was deleted stays while there are queues below it.
    """
    kept = dict(wanted)
    told = dict(problems)
    for name in problems:
        if name in previous:
            kept[name] = previous[name]
    _keep_parents(kept, previous)
    while True:
        try:
            QueueTree(kept.values())
        except QueueConfigError as error:
            _take_back(kept, previous, error, told)
            _keep_parents(kept, previous)
        else:
            return Acceptance(kept, told)


def check_together(texts: Mapping[str, str]) -> int:
    """How many queues these documents (text by source) have; they belong together.

    Raises:
        QueueDocumentError: with everything that is wrong.
    """
    problems: list[str] = []
    sources: dict[str, str] = {}
    specs: dict[str, QueueSpec] = {}
    for source, text in texts.items():
        try:
            documents = read_queues(text, source)
        except QueueDocumentError as error:
            problems += error.problems
            continue
        problems += [f"{source}: queue {name}: is in {sources[name]} too" for name in documents.queues if name in specs]
        specs |= documents.queues
        sources |= dict.fromkeys(documents.queues, source)
    if not problems:  # else queues may be missing that others need
        found = accept(*configs_of(specs), {}).problems
        problems = [
            f"{sources[name]}: queue {name}: {problem}"
            for name, problem in sorted(found.items())
            if problem != _follows(specs[name].parent)
        ]
    if problems:
        raise QueueDocumentError(problems)
    return len(specs)


def _keep_parents(kept: dict[str, QueueConfig], previous: Configs) -> None:
    """Bring back what was above a queue that is still there."""
    for config in list(kept.values()):
        parent = config.parent
        while parent not in kept and parent in previous:
            kept[parent] = previous[parent]
            parent = previous[parent].parent


def _take_back(kept: dict[str, QueueConfig], previous: Configs, error: QueueConfigError, told: dict[str, str]) -> None:
    """Undo what brought the error: the queue that it names, or else what is new above and below it."""
    related = [error.queue, *_below(kept, error.queue), *_above(kept, error.queue)]
    changed = [name for name in related if kept.get(name) != previous.get(name)]
    undone = [error.queue] if error.queue in changed or not changed else changed
    for name in undone:
        told.setdefault(name, _said(error) if name == error.queue else f"queue {error.queue}: {_said(error)}")
        if name in previous and name in changed:
            kept[name] = previous[name]
            continue
        for one in (name, *_below(kept, name)):
            gone = kept.pop(one, None)
            if gone is not None and one != name and gone != previous.get(one):
                told.setdefault(one, _follows(gone.parent))
            if one in previous:
                kept[one] = previous[one]


def _follows(parent: str) -> str:
    return f'parent: queue "{parent}" is not accepted'


def _below(configs: Configs, top: str) -> Iterable[str]:
    found = [top]
    for name in found:  # grows while it is gone through; a cycle ends it
        found += [one.name for one in configs.values() if one.parent == name and one.name not in found]
    return found[1:]


def _above(configs: Configs, name: str) -> Iterable[str]:
    found: list[str] = []
    while name in configs and name not in found:
        found.append(name)
        name = configs[name].parent
    return found[1:]


def _said(error: QueueConfigError) -> str:
    return f"{error.field}: {error.message}"


def _resources(queue: str, field: str, quantities: Quantities) -> Resources:
    try:
        return Resources.parse(quantities)
    except QuantityError as error:
        raise QueueConfigError(queue, field, str(error)) from None


def _maximum(queue: str, field: str, quantities: Quantities) -> Maximum:
    try:
        return Maximum.parse(quantities)
    except QuantityError as error:
        raise QueueConfigError(queue, field, str(error)) from None
