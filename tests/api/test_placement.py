"""Which taints a toleration means."""

from __future__ import annotations

import pytest

from sampan.api import placement


@pytest.mark.parametrize(
    ("toleration", "value", "tolerated"),
    [
        ({"operator": "Exists"}, "950", True),
        ({"key": "k", "value": "950"}, "950", True),
        ({"key": "k", "value": "951"}, "950", False),
        ({"key": "k", "operator": "Gt", "value": "900"}, "950", True),
        ({"key": "k", "operator": "Gt", "value": "950"}, "950", False),
        ({"key": "k", "operator": "Gt", "value": "1000"}, "950", False),
        ({"key": "k", "operator": "Lt", "value": "1000"}, "950", True),
        ({"key": "k", "operator": "Lt", "value": "-1"}, "-2", True),
        ({"key": "k", "operator": "Lt", "value": "1000"}, "gold", False),
        ({"key": "other", "operator": "Gt", "value": "900"}, "950", False),
        ({"key": "k", "operator": "Gt", "value": "900", "effect": "NoExecute"}, "950", False),
    ],
)
def test_a_toleration(toleration, value, tolerated):
    taint = {"key": "k", "value": value, "effect": "NoSchedule"}
    assert placement.tolerates(toleration, taint) is tolerated
