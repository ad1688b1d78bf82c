"""FlowSchemas say whether the priority level they name is there."""

from world import World

from sampan.api import meta
from sampan.client.plan import Delete
from sampan.controllers import flowcontrol

SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"


def dangling(w):
    found = meta.condition(w.get(SCHEMAS, "mine", ""), "Dangling")
    return found["status"], found["reason"]


def test_a_schema_dangles_while_its_level_is_missing():
    w = World(*flowcontrol.rules())
    named = {"priorityLevelConfiguration": {"name": "slow"}}
    w.put(SCHEMAS, {"metadata": {"name": "mine"}, "spec": named})
    w.settle()
    assert dangling(w) == ("True", "NotFound")
    w.put(LEVELS, {"metadata": {"name": "slow"}, "spec": {}})
    w.settle()
    assert dangling(w) == ("False", "Found")
    w.delete(Delete(LEVELS, "slow", ""))
    w.settle()
    assert dangling(w) == ("True", "NotFound")
