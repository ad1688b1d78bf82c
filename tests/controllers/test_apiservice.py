"""When an APIService may be asked, and what its condition says before; what admission policies are told of themselves."""

import functools

import pytest
from world import World

from sampan.api import meta
from sampan.api.resources import BUILTIN
from sampan.controllers import apiservice, policy_status

SERVICES = "apiservices.apiregistration.k8s.io"
SLICES = "endpointslices.discovery.k8s.io"
POLICIES = "validatingadmissionpolicies.admissionregistration.k8s.io"
ASKED = ("effect:apiservice", "", "v1.x.io")


def world(*, ports=None, ends=None, backing=True, service=True):
    """An APIService whose Service listens on `ports` ({number: name}) and has slices of `ends` ({port name: ready})."""
    w = World(*apiservice.rules())
    ref = {"service": {"namespace": "default", "name": "b", "port": 443}} if backing else {}
    w.put(SERVICES, {"metadata": {"name": "v1.x.io"}, "spec": {"group": "x.io", "version": "v1", **ref}})
    if service:
        spec = {"ports": [{"port": n, "name": name} for n, name in (ports or {443: "https"}).items()]}
        w.put("services", {"metadata": {"name": "b"}, "spec": spec})
    for name, ready in (ends or {}).items():
        labels = {"kubernetes.io/service-name": "b"}
        points = [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]
        piece = {"metadata": {"name": f"b-{name}", "labels": labels}}
        w.put(SLICES, piece | {"endpoints": points, "ports": [{"name": name, "port": 8443}]})
    return w


@pytest.mark.parametrize(
    "setting, answer, expected",
    [
        ({"backing": False, "service": False}, None, ("True", "Local")),
        ({"service": False}, None, ("False", "ServiceNotFound")),
        ({"ports": {80: "http"}}, None, ("False", "ServicePortError")),
        ({}, None, ("False", "EndpointsNotFound")),
        ({"ends": {"https": False}}, None, ("False", "MissingEndpoints")),
        ({"ends": {"other": True}}, None, ("False", "MissingEndpoints")),
        ({"ends": {"https": True}}, {"error": "no answer"}, ("False", "FailedDiscoveryCheck")),
        ({"ends": {"https": True}}, {}, ("True", "Passed")),
    ],
)
def test_what_an_api_service_says_of_itself(setting, answer, expected):
    w = world(**setting)
    if answer is not None:
        w.live_only[ASKED] = answer
    w.act(w.rules[0], SERVICES, "v1.x.io", "")
    condition = meta.condition(w.get(SERVICES, "v1.x.io"), "Available")
    assert (condition["status"], condition["reason"]) == expected
    assert w.plan(w.rules[0], SERVICES, "v1.x.io", "").phases in ([], [[]])  # and nothing more


@pytest.mark.parametrize(
    "expression, warned",
    [("object.spec.replicas > 1", False), ("object.spec.nothing == 1", True)],
)
def test_a_policy_is_told_once_what_its_expressions_would_trip_over(expression, warned):
    rule = functools.partial(policy_status.reconcile, registry=BUILTIN)
    rules = [
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
    ]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": expression}]}
    w = World(*policy_status.rules(BUILTIN))
    w.put(POLICIES, {"metadata": {"name": "p"}, "spec": spec})
    w.settle()
    policy = w.get(POLICIES, "p")
    assert policy["status"]["observedGeneration"] == 1
    assert bool(policy["status"]["typeChecking"].get("expressionWarnings")) == warned
    assert rule(policy, w, 0.0).idle
