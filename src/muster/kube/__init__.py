"""Kubernetes I/O: client, list-watch, typed objects, custom resources, lease, certificates.

In: kubeconfig or in-cluster configuration. Out: slim typed objects and calls that retry as the API asks.
Never: a word about scheduling; this room could serve any controller.
"""
