"""Why an application waits, for programs: the ``reason`` of its status and condition. Stable."""

WAITING = "WaitingForCapacity"
BEHIND = "BehindEarlier"
EXCEEDS = "ExceedsCluster"
EXCEEDS_QUEUE = "ExceedsQueue"
OVER_QUOTA = "OverQuota"
UNKNOWN_QUEUE = "UnknownQueue"
NOT_ALLOWED = "NotAllowed"
LEFT = "LeftToScheduler"

WITHOUT_DEMAND = frozenset({EXCEEDS_QUEUE, OVER_QUOTA, UNKNOWN_QUEUE, NOT_ALLOWED, LEFT})
"""More nodes would not help: an autoscaler is told nothing."""
