"""For your tests: a whole Kubernetes in your process, with time in your hand (`Cluster`) or behind HTTPS (`Served`)."""

from sampan.testing.cluster import Cluster, Write
from sampan.testing.console import Finished
from sampan.testing.served import Served

__all__ = ["Cluster", "Finished", "Served", "Write"]
