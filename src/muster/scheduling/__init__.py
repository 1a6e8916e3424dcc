"""The scheduler: events in, decisions out; explanations.

In: ``events`` (frozen values, each with its time ``at`` in seconds). Out: ``decisions`` (frozen values, in order).
It owns the node table, the ledger and the queues; the same log of events gives the same decisions on any machine.
Never: I/O, a clock, randomness, threads, or a Kubernetes object.
"""
