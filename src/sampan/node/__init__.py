"""The node does: runs pods, probes them, reports on them, and carries their traffic."""
