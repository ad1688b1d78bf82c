"""Which rule of a container fits an exit (KEP-5307)."""

import pytest

from sampan.node.pods import restart_all


def rule(action, operator, *values):
    return {"action": action, "exitCodes": {"operator": operator, "values": list(values)}}


FIRST_ALL = [rule("RestartAllContainers", "In", 42), rule("Restart", "NotIn", 0)]


@pytest.mark.parametrize(
    ("rules", "code", "action"),
    [
        (None, 1, ""),
        ([rule("Restart", "In", 1, 2)], 2, "Restart"),
        ([rule("Restart", "In", 1, 2)], 3, ""),
        ([rule("Restart", "NotIn", 0)], 0, ""),
        ([rule("Restart", "NotIn", 0)], 137, "Restart"),
        (FIRST_ALL, 42, "RestartAllContainers"),  # the first that fits
        (FIRST_ALL, 41, "Restart"),
    ],
)
def test_the_first_rule_that_fits(rules, code, action):
    assert restart_all.action({"name": "c", "restartPolicyRules": rules}, code) == action
