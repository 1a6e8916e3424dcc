"""Leader election on a ``coordination.k8s.io/v1`` Lease, by the rules of client-go ``leaderelection``.

Safety does not rest on anybody's wall clock: a candidate takes a lease over only after it has watched it unchanged
for a whole lease duration on its own monotonic clock, and a leader stops believing in itself a shorter time
(``renew_deadline``) after it *began* the last renewal that succeeded. So a process that was paused finds on waking
that it leads no more, before it has talked to anybody: ask ``is_leader`` right before every act.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable

import msgspec

from muster.kube.client import Client
from muster.kube.clock import Clock
from muster.kube.errors import ApiError
from muster.kube.kinds import LEASES
from muster.kube.objects import Lease, LeaseSpec, ObjectMeta
from muster.kube.timestamps import format_micro_time


class LeaseTiming(msgspec.Struct, frozen=True):
    """Seconds; the defaults are those of kube-scheduler and kube-controller-manager."""

    duration: int = 15
    """A lease not renewed for this long may be taken over (whole seconds, as the API has it)."""
    renew_deadline: float = 10.0
    """A leader that could not renew for this long stops; must be shorter than ``duration``."""
    retry: float = 2.0
    """Between two attempts to get or to renew; a candidate's are spread by up to 20 % more."""

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew_deadline < self.duration:
            raise ValueError(
                f"lease timing must be 0 < retry < renew deadline < duration, got {self.retry} s, "
                f"{self.renew_deadline} s, {self.duration} s"
            )


class LeaderElection:
    """One candidate. ``run`` it as a task; cancelling it, or ``release``, ends it."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: LeaseTiming | None = None,
        random: Callable[[], float] = random_module.random,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        """``identity`` must be unique in the cluster, also between two lives of one pod name."""
        self.identity = identity
        self.timing = timing or LeaseTiming()
        self._client = client
        self._clock: Clock = client.clock
        self._namespace = namespace
        self._name = name
        self._random = random
        self._on_change = on_change or (lambda leads: None)
        self._led = False
        self._leads_until = float("-inf")
        self._seen: Lease | None = None
        """As last read or written; its resourceVersion guards the next write."""
        self._seen_since = 0.0
        """When (own clock, before the answer came at the latest) it was first known to be like this."""
        self._outdated = True
        """Somebody else may have written, or our own write may have succeeded unheard: read before the next write."""
        self.last_error: ApiError | None = None
        self.term = 0
        """Counts the times that we became leader. A new number says: others may have led since."""

    def is_leader(self) -> bool:
        """Whether we lead at this very moment, by our own clock."""
        return self._clock.monotonic() < self._leads_until

    def leads_in(self, term: int) -> bool:
        """Whether we lead at this very moment, and have done so without a gap since ``term`` began."""
        return self.is_leader() and self.term == term

    @property
    def holder(self) -> str:
        """Who holds the lease as far as known; "" when nobody does."""
        return (self._seen.spec.holder_identity or "") if self._seen is not None else ""

    async def run(self) -> None:
        """Get the lease, renew it, get it again when it is lost, until cancelled. The lease is then released."""
        try:
            while True:
                await self.attempt()
                spread = 0.0 if self.is_leader() else 0.2 * self._random()
                await self._clock.sleep(self.timing.retry * (1.0 + spread))
        finally:
            await self.release()

    async def attempt(self) -> bool:
        """Try once to get or to renew the lease; returns whether we lead afterwards."""
        self._tell()  # after a pause: the lease may have run out and be ours again in a moment, but others may have led
        begun = self._clock.monotonic()
        held = False
        try:
            # short enough for a leader to have a second try before its deadline
            async with asyncio.timeout(self.timing.renew_deadline / 2):
                held = await self._acquire_or_renew()
            self.last_error = None
        except ApiError as error:
            self.last_error = error
            self._outdated = True
        except TimeoutError:
            self._outdated = True
        if held:
            self._leads_until = begun + self.timing.renew_deadline
        self._tell()
        return self.is_leader()

    async def release(self) -> None:
        """Stop leading, and let the next candidate in without a wait. Failure is no harm: the lease runs out."""
        was_leader, self._leads_until = self.is_leader(), float("-inf")
        self._tell()
        if not was_leader or self._seen is None:
            return
        given_up = msgspec.structs.replace(self._seen.spec, holder_identity="", lease_duration_seconds=1)
        try:
            async with asyncio.timeout(self.timing.retry):
                await self._write(given_up)
        except (ApiError, TimeoutError):
            pass

    async def _acquire_or_renew(self) -> bool:
        if self._outdated or not self.is_leader():
            self._observe(await self._read())
            self._outdated = False
        spec = self._seen.spec if self._seen is not None else None
        if spec is not None and spec.holder_identity and spec.holder_identity != self.identity:
            self._leads_until = float("-inf")
            if self._clock.monotonic() < self._seen_since + (spec.lease_duration_seconds or self.timing.duration):
                return False
        return await self._write(self._claim(spec))

    def _claim(self, before: LeaseSpec | None) -> LeaseSpec:
        now = format_micro_time(self._clock.time())
        ours = before is not None and before.holder_identity == self.identity
        transitions = (before.lease_transitions or 0) + (not ours) if before is not None else 0
        return LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=self.timing.duration,
            acquire_time=before.acquire_time if before is not None and ours else now,
            renew_time=now,
            lease_transitions=transitions,
        )

    async def _read(self) -> Lease | None:
        try:
            return await self._client.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def _write(self, spec: LeaseSpec) -> bool:
        version = self._seen.metadata.resource_version if self._seen is not None else ""
        metadata = ObjectMeta(name=self._name, namespace=self._namespace, resource_version=version)
        body = Lease(metadata=metadata, spec=spec)
        if self._seen is None:
            written = await self._client.create(LEASES, body, self._namespace)
        else:
            written = await self._client.replace(LEASES, self._name, body, self._namespace)
        self._observe(written)
        return self.holder == self.identity

    def _observe(self, lease: Lease | None) -> None:
        if lease is None or self._seen is None or lease.spec != self._seen.spec:
            self._seen_since = self._clock.monotonic()
        self._seen = lease

    def _tell(self) -> None:
        leads = self.is_leader()
        if leads != self._led:
            self._led = leads
            self.term += leads
            self._on_change(leads)
