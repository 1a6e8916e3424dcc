"""Rules that change hold for applications that wait, and leave alone those that have started."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.cluster.resources import Resources
from muster.control.routing import Routes
from muster.kube import objects as k
from muster.queueing.rules import Rule
from muster.scheduling.model import Application, PodShape
from tests.control.spark_pods import driver_pod

KEY = "team-a/spark-1"
TO_ETL = (Rule("etl", namespace="team-*"),)
TO_ML = (Rule("ml", user="alice"), *TO_ETL)


def application(queue: str = "default", user: str = "alice") -> Application:
    return Application(KEY, "nightly", 0.0, None, PodShape(Resources.of(cpu=1000)), 1, 1, queue=queue, user=user)


def driver(**annotations: str) -> k.Pod:
    body: dict[str, Any] = driver_pod()
    body["metadata"]["annotations"] = {f"muster.dev/{name}": text for name, text in annotations.items()}
    return msgspec.json.decode(msgspec.json.encode(body), type=k.Pod)


def test_one_that_waits_follows_the_rules_of_the_moment() -> None:
    routes = Routes()
    routes.seen(KEY, driver())
    assert routes.found(application(), TO_ETL).queue == "etl"
    [moved] = routes.rerouted(TO_ML)
    assert moved == application("ml")
    assert routes.rerouted(TO_ML) == [], "it is told once"


def test_one_that_names_its_queue_is_not_moved() -> None:
    routes = Routes()
    routes.seen(KEY, driver(queue="chosen"))
    assert routes.found(application(), TO_ETL).queue == "chosen"
    assert routes.rerouted(TO_ML) == []


def test_one_that_has_started_stays() -> None:
    routes = Routes()
    routes.seen(KEY, driver())
    routes.found(application(), TO_ETL)
    routes.settled(KEY)
    assert routes.rerouted(TO_ML) == []


def test_the_user_is_the_one_it_was_found_with_whatever_its_annotations_say_by_now() -> None:
    routes = Routes()
    routes.seen(KEY, driver(user="alice"))
    assert routes.found(application(user="bob"), TO_ML).queue == "etl"


def test_one_whose_driver_is_not_known_keeps_its_queue() -> None:
    """Client mode, or a Gang whose driver was not listed."""
    assert Routes().found(application("etl"), TO_ML).queue == "etl"
