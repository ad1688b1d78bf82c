"""/metrics: requests by what they asked for, how long they took, what is stored."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sampan.server.nonresource.metrics import BUCKETS, Metrics
from sampan.server.route import parse

PODS = "/api/v1/namespaces/d/pods"


def samples(text):
    """{(name, labels with a value)} -> value"""
    return {
        (one.name, frozenset((k, v) for k, v in one.labels.items() if v)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def found(text, name, **labels):
    return samples(text).get((name, frozenset(labels.items())))


async def test_requests_are_counted_by_what_they_asked_for(api):
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
    await api.call("GET", "/api/v1/namespaces/none")
    _, text = await api.call("GET", "/metrics")
    of = {"version": "v1", "resource": "namespaces"}
    assert found(text, "apiserver_request_total", verb="POST", scope="cluster", code="201", **of) == 1
    # The path names the namespace in two places: as what is asked for and as where it is.
    assert found(text, "apiserver_request_total", verb="GET", scope="resource", code="404", **of) == 1
    assert found(text, "apiserver_storage_objects", resource="namespaces") == 1


@pytest.mark.parametrize(
    ("method", "path", "known", "code", "labels"),
    [
        ("GET", PODS, True, 200, {"verb": "LIST", "version": "v1", "resource": "pods", "scope": "namespace"}),
        (
            "PUT",
            f"{PODS}/a/status",
            True,
            409,
            {
                "verb": "PUT",
                "version": "v1",
                "resource": "pods",
                "subresource": "status",
                "scope": "resource",
            },
        ),
        (
            "GET",
            f"{PODS}/a/nonsense-1",
            True,
            404,
            {"verb": "GET", "version": "v1", "resource": "pods", "scope": "resource"},
        ),
        ("GET", "/apis/g/v1/nonsense", False, 404, {"verb": "LIST"}),
        ("BREW", "/pot", False, 404, {"verb": "OTHER"}),
        ("GET", "/version", False, 200, {"verb": "GET"}),
    ],
)
def test_labels_of_a_request(method, path, known, code, labels):
    metrics = Metrics()
    metrics.answered(parse(method, path, ""), known, code, 0.001)
    text = metrics.render({}, 0, 1)
    assert found(text, "apiserver_request_total", code=str(code), **labels) == 1
    for name in ("duration", "sli_duration"):
        assert found(text, f"apiserver_request_{name}_seconds_count", **labels) == 1


def test_durations_are_in_buckets():
    metrics = Metrics()
    for seconds in (0.001, 0.005, 0.3, 100.0):
        metrics.answered(parse("GET", "/version", ""), False, 200, seconds)
    metrics.answered(parse("GET", "/version", ""), False, 200, None)  # from inside: counted, not timed
    metrics.answered(parse("GET", PODS, "watch=1"), True, 200, 1.0)  # lasts as long as its caller likes
    text, name = metrics.render({}, 0, 1), "apiserver_request_duration_seconds"
    assert [
        found(text, f"{name}_bucket", verb="GET", le=le) for le in ("0.005", "0.2", "0.4", "60", "+Inf")
    ] == [
        2,
        2,
        3,
        3,
        4,
    ]
    assert found(text, f"{name}_sum", verb="GET") == pytest.approx(100.306)
    assert len([key for key in samples(text) if key[0] == f"{name}_bucket"]) == len(BUCKETS) + 1


async def test_health_checks_are_counted_for_service_level_indicators(api):
    for path in ("/readyz", "/readyz/ping", "/livez?exclude=ping", "/livez/none"):
        await api.call("GET", path)
    status, text = await api.call("GET", "/metrics/slis")
    assert status == 200
    got = samples(text)
    runs = {
        (endpoint, check): got.get(
            (
                "kubernetes_healthchecks_total",
                frozenset({("type", endpoint), ("name", check), ("status", "success")}),
            )
        )
        for endpoint in ("readyz", "livez")
        for check in ("ping", "etcd", "none")
    }
    assert runs == {
        ("readyz", "ping"): 2,
        ("readyz", "etcd"): 1,
        ("readyz", "none"): None,
        ("livez", "ping"): None,
        ("livez", "etcd"): 1,
        ("livez", "none"): None,
    }
    assert got["kubernetes_healthcheck", frozenset({("type", "readyz"), ("name", "ping")})] == 1
