"""Muster: a control plane that makes Apache Spark on Kubernetes start whole, scale right and stay fast.

A functional core decides (``spark``, ``cluster``, ``packing``, ``queueing``, ``scheduling``): no I/O, no clock, no
randomness, no threads. A thin shell talks (``kube``, ``control``, ``devcluster``, ``cli``). ``docs/architecture.md``
has the map; each room's ``__init__`` says what belongs in it.
"""
