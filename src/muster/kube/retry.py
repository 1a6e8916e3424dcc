"""Which failed calls may be sent again, and when. Pure: the randomness comes in as a number."""

from __future__ import annotations

import msgspec

from muster.kube.errors import ApiError


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential back-off with jitter, between ``1 - jitter`` and 1 times the delay; times in seconds."""

    attempts: int = 6
    """In all, the first one included."""
    first: float = 0.25
    ceiling: float = 10.0
    jitter: float = 0.5
    patience: float = 30.0
    """A server that asks for a longer ``Retry-After`` is not waited for: the caller gets the error and decides."""

    def delay(self, failures: int, random: float) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (1, 2, …); ``random`` is in [0, 1)."""
        full = min(self.ceiling, self.first * 2.0 ** min(failures - 1, 30))
        return full * (1.0 - self.jitter * random)

    def wait(self, error: ApiError, *, failures: int, repeatable: bool, random: float) -> float | None:
        """Seconds until the next attempt, or ``None`` when there is none.

        ``repeatable``: doing the call twice does no more than once. A call that is not is sent again only when the
        server surely did nothing: it refused (429, or 5xx with ``Retry-After``, as client-go has it), or it was never
        reached.
        """
        if failures >= self.attempts or not error.transient:
            return None
        refused = error.code == 429 or (error.code >= 500 and error.retry_after is not None) or not error.sent
        if not (repeatable or refused):
            return None
        asked = error.retry_after or 0.0
        return None if asked > self.patience else asked + self.delay(failures, random)
