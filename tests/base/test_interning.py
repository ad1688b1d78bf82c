"""Equal small maps become one."""

from sampan.base.interning import shared


def test_equal_maps_are_one_and_order_is_kept():
    first = shared({"app": "web", "tier": "front"})
    assert shared({"app": "web", "tier": "front"}) is first
    assert shared({"tier": "front", "app": "web"}) is not first
    assert shared({}) == {}


def test_forgetting_does_not_change_what_was_shared():
    first = shared({"n": "first"})
    for number in range(10_000):
        shared({"n": str(number)})
    assert first == {"n": "first"} == shared({"n": "first"})
