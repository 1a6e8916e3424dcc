"""Who goes next: the order of waiting applications.

In: applications that wait, the policy of their queue.
Out: the order in which they may be tried, and who blocks whom.
Never: a look at nodes, or a decision to start anything.
"""
