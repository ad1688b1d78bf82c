"""A cluster inside a test, in milliseconds: `async with Cluster() as cluster: ...`."""

from sampan.testing.cluster import Cluster

__all__ = ["Cluster"]
