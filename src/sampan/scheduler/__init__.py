"""The scheduler: `schedule(pod, snapshot) -> Decision` decides, `run.Scheduler` watches, asks, and binds.

    pods, nodes  ->  Snapshot (arrays)  ->  filters  ->  scores  ->  Decision  ->  binding

NumPy is imported when the first node comes: a cluster without nodes does without.
"""
