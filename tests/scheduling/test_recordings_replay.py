"""The same log gives the same decisions, byte for byte, whatever the hash seed of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.scheduling import recording
from muster.scheduling.events import TimePassed
from tests.scheduling.cluster_story import Cluster, dynamic, static

Clusters = Callable[..., Cluster]
REPLAY = Path(__file__).with_name("replay_recording.py")
PACKER = "az-aware-tightly-pack"


def an_eventful_day(cluster: Cluster) -> list[bytes]:
    """Gangs that start, wait and end, extras, held executors, lost nodes; as recorded lines."""
    cluster.with_nodes(3, zone="a").with_nodes(3, zone="b").with_nodes(1, pool="x")
    apps = [cluster.submit(dynamic(size % 4, size + 2)) for size in range(8)]
    for round_ in range(3):
        for app in apps:
            if app.driver.node:
                app.start_executors(2)
        cluster.wait(31)
        cluster.submit(static(3 + round_).in_pool("x"))
        cluster.lose_node(next(iter(cluster.nodes)))
        apps.pop(0).end().collect()
    return [recording.encode(entry) for entry in cluster.log]


def replay(lines: list[bytes], hash_seed: str) -> bytes:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, str(REPLAY), PACKER], input=b"\n".join(lines), capture_output=True, env=environment, check=True
    )
    return done.stdout


def test_decisions_do_not_depend_on_the_hash_seed(clusters: Clusters) -> None:
    lines = an_eventful_day(clusters(packer=PACKER))
    recorded = [
        line for line, entry in zip(lines, recording.decode(lines), strict=True) if isinstance(entry, recording.Output)
    ]
    assert len(recorded) > 100

    for hash_seed in ("0", "1", "4242"):
        assert replay(lines, hash_seed).splitlines() == recorded


def test_a_recording_reads_back_as_it_was(clusters: Clusters) -> None:
    cluster = clusters(packer=PACKER)
    lines = an_eventful_day(cluster)

    assert list(recording.decode(lines)) == cluster.log


def test_a_line_that_is_no_entry_is_named() -> None:
    good = recording.encode(TimePassed(1.0))

    with pytest.raises(recording.LogError, match="line 2 is no entry of a recording"):
        list(recording.decode([good, b'{"type":"Nonsense"}']))
