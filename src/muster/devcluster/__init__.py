"""An embedded cluster for laptops, demos and tests.

An in-memory Kubernetes API server that speaks the real protocol, a stand-in for kube-scheduler, virtual kubelets
(pods that run for a set time) and a process kubelet (real Spark drivers and executors as local processes).
Never: a shortcut that the real Kubernetes would not allow; where they differ, this one is wrong.
"""
