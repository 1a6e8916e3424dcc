"""What became of finished applications: their timelines, what they cost and wasted, and what that says of the next run.

In: values about applications and their pods as they change, each with its time; questions of people (``queries``).
Out: one row per finished application in an embedded store (SQLite), sums over them, run-time estimates, wait ETAs.
Never: a decision, a Kubernetes object, or anything that the service would stop for: history is a courtesy. Only
``store`` and ``archive`` do I/O; the rest is pure, and time comes in with what happens.
"""
