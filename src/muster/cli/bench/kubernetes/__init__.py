"""``muster bench kubernetes``: Spark's pods on a real API server, with and without Muster.

``plan`` says what is run, ``run`` does one run on a control plane of its own, ``spark_load`` is the program that
creates the pods, ``audit`` reads what happened from the API server's audit log, ``report`` sums up and prints.
"""
