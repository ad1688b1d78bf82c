"""Judging objects as the server does: decoded, completed, then validated; errors as the lines a user reads."""

import copy
import sys
from pathlib import Path

import pytest

from sampan.api import fields, schema
from sampan.api.defaults import apply_defaults
from sampan.api.resources import BUILTIN
from sampan.api.validate import validate_create, validate_update

sys.path.insert(0, str(Path(__file__).parent))  # for `lines`


class Judge:
    """`create` and `update` answer one line `field: message` for each error."""

    def complete(self, resource, obj, version=None):
        row = next(r for r in BUILTIN if r.name == resource and version in (None, r.version))
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        meta.setdefault("name", "x")
        meta.setdefault("uid", "u")
        if row.namespaced:
            meta.setdefault("namespace", "default")
        node = schema.root(row.group, row.version, row.kind)
        obj, problems = fields.normalize(obj, node, strict=True)
        assert problems == []
        apply_defaults(row, obj)
        return row, obj

    def create(self, resource, obj, version=None):
        row, obj = self.complete(resource, obj, version)
        return [str(e) for e in validate_create(row, obj)]

    def update(self, resource, new, old, subresource=""):
        row, old = self.complete(resource, old)
        _, new = self.complete(resource, new)
        for obj in (new, old):
            obj["metadata"]["resourceVersion"] = "1"
        return [str(e) for e in validate_update(row, new, old, subresource)]


@pytest.fixture
def judge():
    return Judge()


def change(obj, path, value):
    """A copy of `obj` with another value at a path such as `spec.containers.0.image`; `...` takes it away."""
    obj = copy.deepcopy(obj)
    *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    at = obj
    for part in way:
        if isinstance(at, dict) and part not in at:
            at[part] = {}
        at = at[part]
    if value is ...:
        at.pop(last)
    else:
        at[last] = value
    return obj


@pytest.fixture
def put():
    return change
