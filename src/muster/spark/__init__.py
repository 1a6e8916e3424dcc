"""What Spark says and means on Kubernetes.

In: the text of a driver's ``spark.properties``, labels and annotations of Spark pods.
Out: application identity, the size of each pod to the MiB, the size and ceiling of the gang.
Never: Kubernetes calls, scheduling decisions, values of properties outside the allow-list.
"""
