"""What goes wrong in one run, drawn from its seed: the fate of every API request, and when the larger events come.

Pure: a fate depends on the seed, on what the request is and on how often it was made before, never on the order in
which concurrent requests arrive. So a plan is the same for a live run and for one under virtual time.

Times are seconds since the run began. From ``faulty_seconds`` on nothing goes wrong any more: what is still under way
then may end, and the cluster must converge.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class ApiRequest:
    """A request as RBAC names it, for example ``patch`` of ``pods`` or ``update`` of ``gangs/status``."""

    verb: str
    resource: str
    path: str
    """Without the query."""
    attempt: int
    """How many requests of this verb and path came before it."""


@dataclass(frozen=True)
class Pass:
    """Nothing goes wrong."""


@dataclass(frozen=True)
class Refuse:
    """Answered with an error and not done."""

    code: int
    """409, 429, 500 or 503."""
    retry_after: int | None = None
    """Seconds; 429 always has it."""


@dataclass(frozen=True)
class LoseAnswer:
    """Done, but the client does not learn it: the ambiguous failure."""

    code: int
    """500 instead of the true answer; 0: the connection is reset."""


@dataclass(frozen=True)
class Delay:
    """Slow on the way there (done late, or never when the client gives up before) or on the way back (done at once)."""

    seconds: float
    on_the_way_back: bool


@dataclass(frozen=True)
class CutWatch:
    """The stream of a watch ends in the middle of a line."""

    after_lines: int
    """Whole lines that get through."""


@dataclass(frozen=True)
class ExpireWatch:
    """A watch is told that its resource version is too old: 410 Gone."""

    in_stream: bool
    """An ``ERROR`` event in a 200 answer; else the answer's own status."""


Fate = Pass | Refuse | LoseAnswer | Delay | CutWatch | ExpireWatch


@dataclass(frozen=True)
class KillLeader:
    """SIGKILL, and started again by whatever restarts it."""

    at: float


@dataclass(frozen=True)
class PauseLeader:
    """SIGSTOP until its lease has run out and another leads, then SIGCONT."""

    at: float


@dataclass(frozen=True)
class RestartApiServer:
    """SIGKILL, and started again after ``down`` seconds."""

    at: float
    down: float


@dataclass(frozen=True)
class CutAllWatches:
    """Every open watch ends, in the middle of a line where one is under way."""

    at: float


LargeEvent = KillLeader | PauseLeader | RestartApiServer | CutAllWatches


@dataclass(frozen=True)
class Rates:
    """Probabilities per request."""

    refuse: float = 0.0
    lose_answer: float = 0.0
    delay: float = 0.0
    longest_delay: float = 1.0
    """Seconds."""
    cut_watch: float = 0.0
    expire_watch: float = 0.0


@dataclass(frozen=True)
class FaultPlan:
    """All of one run. ``print`` it when the run fails: it says everything."""

    seed: int
    faulty_seconds: float
    rates: Rates
    events: tuple[LargeEvent, ...]
    """In order of time."""

    def fate(self, request: ApiRequest, at: float) -> Fate:
        """What happens to a request made ``at`` seconds into the run."""
        if at >= self.faulty_seconds:
            return Pass()
        # seeded by a text: the same on every machine and hash seed, unlike hash()
        luck = random.Random(f"{self.seed} {request.verb} {request.path} {request.attempt}")
        if request.verb == "watch":
            return _fate_of_watch(self.rates, luck)
        return _fate_of_call(self.rates, luck, writes=request.verb in WRITES)


def draw_plan(
    seed: int,
    *,
    faulty_seconds: float,
    longest_delay: float,
    weights: Mapping[type[LargeEvent], float],
    most_events: int,
    fewest_events: int = 1,
    api_down: float = 1.0,
) -> FaultPlan:
    """The plan of a seed.

    ``weights``: how often each kind of large event is drawn, relative to the others; a kind not named never comes.
    ``fewest_events``, ``most_events``: how many large events there are (none when nothing has a weight).
    ``longest_delay``, ``api_down``: seconds, upper bounds.
    """
    luck = random.Random(seed)
    rates = Rates(
        refuse=luck.choice((0.02, 0.1, 0.25)),
        lose_answer=luck.choice((0.02, 0.1, 0.25)),
        delay=luck.choice((0.02, 0.1)),
        longest_delay=longest_delay,
        cut_watch=luck.choice((0.2, 0.6)),
        expire_watch=luck.choice((0.05, 0.3)),
    )
    kinds = list(weights)
    count = luck.randint(fewest_events, most_events) if kinds else 0
    events: list[LargeEvent] = []
    for kind in luck.choices(kinds, [weights[kind] for kind in kinds], k=count):
        at, down = round(luck.uniform(0.0, faulty_seconds), 3), round(luck.uniform(0.0, api_down), 3)
        events.append(RestartApiServer(at, down) if issubclass(kind, RestartApiServer) else kind(at))
    return FaultPlan(seed, faulty_seconds, rates, tuple(sorted(events, key=lambda event: event.at)))


def classify(method: str, path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """Verb and resource (with its subresource) of an HTTP request; ``("", "")`` when it is not for a resource.

    Source: apiserver ``pkg/endpoints/request/requestinfo.go``.
    """
    parts = [part for part in path.split("/") if part]
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:] if parts[:1] == ["apis"] else []
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        rest = rest[2:]
    if not rest:
        return "", ""
    named = len(rest) > 1
    resource = "/".join((rest[0], *rest[2:3]))
    if method in ("GET", "HEAD"):
        watched = query.get("watch", "").lower() in ("true", "1")
        return ("get" if named else "watch" if watched else "list"), resource
    if method == "DELETE":
        return ("delete" if named else "deletecollection"), resource
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, ""), resource


def _fate_of_watch(rates: Rates, luck: random.Random) -> Fate:
    number = luck.random()
    if number < rates.expire_watch:
        return ExpireWatch(in_stream=luck.random() < 0.5)
    if number < rates.expire_watch + rates.cut_watch:
        return CutWatch(luck.choice((0, 1, 3, 10, 40)))
    return Pass()


def _fate_of_call(rates: Rates, luck: random.Random, *, writes: bool) -> Fate:
    number = luck.random()
    if number < rates.refuse:
        code = luck.choice((409, 429, 500, 503) if writes else (429, 500, 503))
        asks = code == 429 or (code == 503 and luck.random() < 0.5)
        return Refuse(code, luck.choice((0, 1, 2)) if asks else None)
    number -= rates.refuse
    if number < rates.lose_answer:
        return LoseAnswer(luck.choice((0, 500)))
    number -= rates.lose_answer
    if number < rates.delay:
        # mostly short, now and then the longest
        return Delay(round(rates.longest_delay * luck.random() ** 3, 3), on_the_way_back=luck.random() < 0.5)
    return Pass()
