"""Drop-in for the archived palantir/k8s-spark-scheduler: its wire format, custom resources, configuration and metrics.

In: calls of kube-scheduler's extender protocol, ``install.yml``, objects of ``sparkscheduler.palantir.com`` and
``scaler.palantir.com``. Out: the same to the byte where others read them; everything else as the rest of Muster has it.
Never: a decision of its own about placement or order, or anything that code outside this room must know of.
"""
