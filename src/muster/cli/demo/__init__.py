"""``muster demo``: an embedded cluster, recorded workloads, real Spark, and what an onlooker measures.

In: the recorded applications in ``data``, options. Out: a live view, a closing table or one JSON object.
Never: a number taken from Muster itself: everything is measured from the cluster's side.
"""
