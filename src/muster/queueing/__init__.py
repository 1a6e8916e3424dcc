"""Who goes next: the tree of queues, what each of them holds, and whose turn it is.

In: the configuration of queues, what applications hold (``Charge``), applications that wait (``Entry``).
Out: the order in which they may be tried (``Queues.turns``), the limit that stands against one (``Refusal``), the queue
that an application goes to (``rules``).
Never: a look at nodes, or a decision to start anything.
"""
