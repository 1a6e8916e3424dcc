"""Every scenario ends with a check of the invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from muster.scheduling.config import SchedulerConfig
from tests.scheduling.cluster_story import Cluster


@pytest.fixture
def clusters() -> Iterator[Callable[..., Cluster]]:
    """Makes clusters with a configuration; all are validated when the test is over."""
    made: list[Cluster] = []

    def make(synced: bool = True, **settings: object) -> Cluster:
        made.append(Cluster(SchedulerConfig(**settings), synced=synced))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cluster in made:
        cluster.scheduler.validate()
        assert cluster.overcommitted() == []


@pytest.fixture
def cluster(clusters: Callable[..., Cluster]) -> Cluster:
    """A cluster with the default configuration and no nodes yet."""
    return clusters()
