"""How many decisions the scheduler takes a second: 1,000 nodes, pods of many Deployments, each placed before the next.

.venv/bin/python bench/scheduler.py [nodes] [pods]
"""

import os
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from sampan.base.ids import Ids
from sampan.scheduler.schedule import schedule
from sampan.scheduler.snapshot import Snapshot


def node(i):
    labels = {"kubernetes.io/hostname": f"n{i}", "topology.kubernetes.io/zone": f"z{i % 3}"}
    allocatable = {"cpu": "32", "memory": "128Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "metadata": {"name": f"n{i}", "labels": labels},
        "spec": {},
        "status": {"allocatable": allocatable},
    }


def pod(i, kind):
    app = f"app-{i % 50}"
    metadata = {
        "name": f"p{i}",
        "namespace": "default",
        "uid": str(i),
        "labels": {"app": app},
        "ownerReferences": [{"uid": app, "kind": "ReplicaSet", "name": app, "controller": True}],
    }
    spec = {"containers": [{"image": "img", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]}
    chosen = {"matchLabels": {"app": app}}
    if kind == "spread":
        zone = "topology.kubernetes.io/zone"
        rule = {
            "maxSkew": 1,
            "topologyKey": zone,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": chosen,
        }
        spec["topologySpreadConstraints"] = [rule]
    if kind == "anti-affinity":
        term = {"labelSelector": chosen, "topologyKey": "kubernetes.io/hostname"}
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {"metadata": metadata, "spec": spec, "status": {}}


def run(nodes, pods, kind):
    snapshot, ids = Snapshot(), Ids(1)
    for i in range(nodes):
        snapshot.set_node(node(i))
    waiting = [pod(i, kind) for i in range(pods)]
    began = time.perf_counter()
    for p in waiting:
        snapshot.set_pod(p, schedule(p, snapshot, ids.choice).node)
    return pods / (time.perf_counter() - began)


if __name__ == "__main__":
    nodes, pods = (
        (int(a) for a in [*sys.argv[1:], "1000", "5000"][:2])
        if len(sys.argv) < 3
        else map(int, sys.argv[1:3])
    )
    for kind in ("plain", "spread", "anti-affinity"):
        print(f"{kind:15} {nodes} nodes {run(nodes, pods, kind):10,.0f} pods/s")
