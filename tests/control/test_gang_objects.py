"""The Gang object says all that a new leader needs, and the API server would accept it."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.constraints import PodConstraints, Requirement, Term, Toleration
from muster.cluster.resources import Resources
from muster.control import gangs
from muster.kube.definitions import gang_definition
from muster.kube.resources import Gang
from muster.scheduling.model import Application, GangStatus, Phase, PodRef, PodShape, Reservation, Slot

SCHEMA = gang_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
amounts = st.integers(0, 2**50)
resources = st.builds(
    lambda cpu, memory, gpus: Resources(
        tuple(
            sorted({name: n for name, n in {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus}.items() if n}.items())
        )
    ),
    st.integers(1, 10**6),
    amounts,
    st.integers(0, 8),
)
requirements = st.one_of(
    st.builds(Requirement, words, st.sampled_from(["In", "NotIn"]), st.lists(words, min_size=1, max_size=3).map(tuple)),
    st.builds(Requirement, words, st.sampled_from(["Exists", "DoesNotExist"])),
)
terms = st.builds(Term, st.lists(requirements, max_size=2).map(tuple), st.lists(requirements, max_size=1).map(tuple))
constraints = st.builds(
    PodConstraints,
    st.dictionaries(words, words, max_size=2).map(lambda labels: tuple(sorted(labels.items()))),
    st.none() | st.lists(terms, max_size=2).map(tuple),
    st.lists(
        st.builds(Toleration, words, st.sampled_from(["Equal", "Exists"]), words, st.sampled_from(["", "NoSchedule"])),
        max_size=2,
    ).map(tuple),
)
shapes = st.builds(PodShape, resources, constraints)


@st.composite
def applications(draw: st.DrawFn) -> Application:
    minimum = draw(st.integers(0, 1000))
    client = draw(st.booleans())
    return Application(
        key="team-a/spark-1",
        name=draw(words),
        created=1_800_000_000.0,
        driver=None if client else draw(shapes),
        executor=draw(shapes),
        minimum=minimum,
        maximum=draw(st.none() | st.integers(minimum, 2000)),
        driver_pod=None if client else PodRef("team-a", "pi-driver", "uid-1"),
        queue=draw(words),
        pool=draw(words | st.just("")),
        profiles=tuple(enumerate(draw(st.lists(shapes, max_size=2)), start=1)),
        user=draw(words | st.just("")),
        groups=tuple(draw(st.lists(words, max_size=2))),
        priority=draw(st.integers(-(2**31), 2**31 - 1)),
        run_seconds=draw(st.none() | st.floats(0, 1e7, allow_nan=False)),
    )


reservations = st.none() | st.builds(
    Reservation,
    st.just("team-a/spark-1"),
    st.integers(1, 10**6),
    words,
    st.dictionaries(words, st.integers(1, 500), max_size=4).map(
        lambda counts: tuple(Slot(node, count) for node, count in sorted(counts.items()))
    ),
)


@given(applications(), reservations)
def test_what_was_written_is_read_back(application: Application, reservation: Reservation | None) -> None:
    body = gangs.manifest("team-a", "spark-1", gangs.spec_of(application, reservation), application.driver_pod)
    jsonschema.validate(msgspec.json.decode(msgspec.json.encode(body)), SCHEMA)
    gang = msgspec.json.decode(msgspec.json.encode(body), type=Gang)
    assert gangs.application_from(gang, created=1_800_000_000.0) == application
    assert gangs.reservation_from(gang) == reservation


@pytest.mark.parametrize("phase", list(Phase))
def test_every_status_is_one_the_schema_allows(phase: Phase) -> None:
    status = GangStatus(
        phase, "WaitingForCapacity", "3 of 20 executors fit", 3, 1, 2, 1.8e9, 1.8e9 + 200, None, None, None
    )
    body = gangs.status_of(status)
    assert body["wait"] == "3m20s"
    assert body["reservedAt"] == "2027-01-15T08:03:20.000000Z"
    stored = {name: value for name, value in body.items() if value is not None}
    jsonschema.validate(stored, SCHEMA["properties"]["status"])
    document = gangs.manifest("team-a", "spark-1", {"applicationId": "spark-1"}, None) | {"status": stored}
    gang = msgspec.json.decode(msgspec.json.encode(document), type=Gang)
    assert gangs.status_from(gang) == status, "a new leader goes on with the timestamps"


def test_a_gang_without_sizes_says_so() -> None:
    spec = gangs.spec_of_unknown("team-a/spark-1", PodRef("team-a", "pi-driver", "uid-1"))
    body = gangs.manifest("team-a", "spark-1", spec, PodRef("team-a", "pi-driver", "uid-1"))
    jsonschema.validate(body, SCHEMA)
    with pytest.raises(gangs.BadGang):
        gangs.application_from(msgspec.json.decode(msgspec.json.encode(body), type=Gang))
