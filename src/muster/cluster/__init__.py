"""What the cluster has, and who holds it.

In: nodes, requests and placement constraints as value types.
Out: exact int64 columns per node (``NodeTable``), masks of the nodes a pod may use, the ledger of slots.
Never: an opinion about where a gang should go (``packing``) or whose turn it is (``queueing``).
"""
