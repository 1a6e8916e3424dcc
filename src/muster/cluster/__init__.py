"""What the cluster has, and how much of it is free.

In: nodes, requests and placement constraints as value types.
Out: exact int64 columns per node (``NodeTable``), masks of the nodes a pod may use, the nodes'
order and capacities; all repaired where rows change, never rebuilt per question.
Never: who holds what (``scheduling``), where a gang should go (``packing``), whose turn it is (``queueing``).
"""
