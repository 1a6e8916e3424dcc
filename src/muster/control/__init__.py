"""The live service: admission webhook, reconcilers, and the one place that wires the core to Kubernetes.

In: admission reviews and watch events. Out: events for the scheduler; its decisions carried out through ``kube``.
Never: a decision of its own about placement, order or size.
"""
