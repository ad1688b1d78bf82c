"""Pods of one template share their spec."""

import copy

from sampan.api.shared_specs import shared_spec

SPEC = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}


def test_equal_specs_become_one_and_others_do_not():
    first = shared_spec(copy.deepcopy(SPEC))
    assert first == SPEC and shared_spec(copy.deepcopy(SPEC)) is first
    assert shared_spec({**SPEC, "nodeName": "m"}) == {**SPEC, "nodeName": "m"}
    assert first == SPEC
