"""For your tests: a whole Kubernetes in your process, with time in your hand. See `Cluster`."""

from sampan.testing.cluster import Cluster, Write
from sampan.testing.console import Finished

__all__ = ["Cluster", "Finished", "Write"]
