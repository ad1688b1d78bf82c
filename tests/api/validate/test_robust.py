"""Whatever decodes can be judged: objects made at random from the schema of every kind are refused or not, but never a fault."""

import copy
import random

import pytest

from sampan.api import fields, schema
from sampan.api.defaults import apply_defaults
from sampan.api.resources import BUILTIN
from sampan.api.validate import pod, validate_create, validate_update

KINDS = [r for r in BUILTIN if schema.root(r.group, r.version, r.kind) is not None]
TEXTS = [
    "",
    "a",
    "A b",
    "1",
    "a/b",
    "x.io/y",
    "10.0.0.1",
    "10.0.0.0/8",
    "50%",
    "Localhost",
    "Exists",
    "In",
    "*",
    "v1",
    "é",
    "-",
]


def make(node, rnd, depth):
    """A value that the schema allows by its types; deeper ones grow sparser."""
    match node.type:
        case "object":
            if node.properties:
                keep = 0.6 if depth < 3 else 0.35
                chosen = [k for k in node.properties if rnd.random() < keep and depth < 9]
                return {k: make(node.properties[k], rnd, depth + 1) for k in chosen}
            if node.additional is not None:
                return {
                    rnd.choice(TEXTS): make(node.additional, rnd, depth + 1) for _ in range(rnd.randint(0, 2))
                }
            return {}
        case "array":
            if depth > 8 or node.items is None:
                return []
            return [make(node.items, rnd, depth + 1) for _ in range(rnd.randint(0, 2))]
        case "integer":
            return rnd.choice([-1, 0, 1, 7, 65536])
        case "number":
            return rnd.choice([0, 1.5])
        case "boolean":
            return rnd.random() < 0.5
        case "quantity":
            return rnd.choice(["0", "1", "-1", "500m", "1Gi"])
        case "int-or-string":
            return rnd.choice([0, 1, -1, "50%", "http", ""])
        case "any":
            return rnd.choice([None, 1, "x", {"type": "object"}])
    if node.format in ("date-time", "micro-time"):
        return "2026-01-01T00:00:00Z" if node.format == "date-time" else "2026-01-01T00:00:00.000000Z"
    if node.format == "byte":
        return rnd.choice(["", "YQ=="])
    if node.enum and rnd.random() < 0.7:
        return rnd.choice(node.enum)
    return rnd.choice(TEXTS)


@pytest.mark.parametrize("row", KINDS, ids=lambda r: f"{r.name}/{r.version}")
def test_judging_never_fails(row):
    node = schema.root(row.group, row.version, row.kind)
    for seed in range(12):
        rnd = random.Random(f"{row.name}/{seed}")
        objects = []
        for _ in range(2):
            obj, _problems = fields.normalize(make(node, rnd, 0), node, strict=False)
            obj.setdefault("metadata", {})
            apply_defaults(row, obj)
            objects.append(obj)
        new, old = objects
        before = copy.deepcopy(objects)
        assert isinstance(validate_create(row, new), list)
        for subresource in ("", *row.subresources):
            assert isinstance(validate_update(row, new, old, subresource), list)
        assert objects == before, "judging changes nothing"


def test_a_spec_that_is_known_is_judged_like_a_new_one():
    rnd, node = random.Random(5), schema.definition("io.k8s.api.core.v1.PodSpec")
    good = 0
    for _ in range(300):
        spec = {"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]}
        spec |= {"restartPolicy": "Always", "dnsPolicy": "Default"}
        for field in rnd.sample(sorted(node.properties.keys() - spec.keys()), rnd.randint(0, 2)):
            spec[field] = make(node.properties[field], rnd, 3)
        wanted, first, second = [], [], []
        pod._pod_spec(wanted, spec, "spec")
        pod.pod_spec(first, spec, "spec")
        pod.pod_spec(second, spec, "spec")
        assert first == second == wanted
        good += not wanted
    assert good > 50
