import pytest

from sampan.api.resources import BUILTIN, lookup, subresource


def test_order_of_groups_is_the_one_discovery_shows():
    assert BUILTIN.groups()[:7] == [
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
    ]


def test_both_versions_of_an_autoscaler_share_objects_and_v2_is_preferred():
    v1 = BUILTIN.find("autoscaling", "v1", "horizontalpodautoscalers")
    v2 = BUILTIN.get("horizontalpodautoscalers.autoscaling")
    assert v1 and v2 and v2.version == "v2"
    assert v1.store_key == v2.store_key


def test_events_of_both_groups_share_objects():
    assert {r.store_key for r in BUILTIN if r.plural == "events"} == {"events"}


def test_short_names_are_unique_but_for_kinds_served_twice():
    seen: dict[str, str] = {}
    for row in BUILTIN:
        for short in row.short_names:
            assert seen.setdefault(short, row.kind) == row.kind


@pytest.mark.parametrize(
    ("kind", "verbs"),
    [("Binding", ("create",)), ("ComponentStatus", ("get", "list"))],
)
def test_limited_kinds(kind, verbs):
    assert lookup("v1", kind).verbs == verbs


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (("apps/v1", "Deployment"), "scale", ("autoscaling", "v1", "Scale")),
        (("v1", "Pod"), "eviction", ("policy", "v1", "Eviction")),
        (("v1", "Pod"), "status", ("", "v1", "Pod")),
        (("v1", "ServiceAccount"), "token", ("authentication.k8s.io", "v1", "TokenRequest")),
    ],
)
def test_kind_of_a_subresource(owner, name, expected):
    found = subresource(lookup(*owner), name)
    assert (found.group, found.version, found.kind) == expected
