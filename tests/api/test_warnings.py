"""Warnings of writes that are allowed."""

import pytest

from sampan.api.resources import BUILTIN
from sampan.api.warnings import warnings_of


def row(name):
    return next(r for r in BUILTIN if r.name == name)


def pod(container=None, name="p", **spec):
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec},
    }


P80 = {"containerPort": 80, "protocol": "TCP"}
HIDDEN = 'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(), []),
        (pod({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}), [HIDDEN]),
        (pod({"env": [{"name": "A", "value": "1"}, {"name": "A", "valueFrom": {"fieldRef": {}}}]}), [HIDDEN]),
        (pod({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A):2"}]}), []),
        (pod({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)"}]}), [HIDDEN]),
        (
            pod({"resources": {"limits": {"memory": "128m"}, "requests": {"memory": "1Ki", "cpu": "100m"}}}),
            [
                'spec.containers[0].resources.limits[memory]: fractional byte value "128m" is invalid, must be an integer'
            ],
        ),
        (
            pod({"ports": [P80, P80 | {"name": "web"}]}),
            ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        ),
        (
            pod({"ports": [P80, P80 | {"hostPort": 8080}]}),
            ["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"],
        ),
        (pod({"ports": [P80, P80 | {"protocol": "UDP"}]}), []),
        (
            pod(nodeSelector={"beta.kubernetes.io/os": "linux"}),
            [
                'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'
            ],
        ),
        (
            pod(imagePullSecrets=[{"name": "a"}, {"name": "a"}]),
            ['spec.imagePullSecrets[1].name: duplicate name "a"'],
        ),
        (
            pod(volumes=[{"name": "v", "gitRepo": {"repository": "r"}}]),
            ["spec.volumes[0].gitRepo: deprecated in v1.11"],
        ),
        (
            pod(topologySpreadConstraints=[{"topologyKey": "z"}]),
            [
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            ],
        ),
        (
            pod(name="a.b"),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
                "a DNS label is recommended: [must not contain dots]"
            ],
        ),
    ],
)
def test_of_a_new_pod(given, expected):
    assert warnings_of(row("pods"), given, None) == expected
    assert warnings_of(row("pods"), given, given) == []


@pytest.mark.parametrize(
    ("kind", "place"),
    [("deployments.apps", "spec.template"), ("cronjobs.batch", "spec.jobTemplate.spec.template")],
)
def test_of_a_template_when_it_changes(kind, place):
    obj = pod({"resources": {"limits": {"memory": "1m"}}})
    for step in reversed(place.split(".")):
        obj = {step: obj}
    obj = obj | {"metadata": {"name": "a.b", "generation": 2}}
    [name, memory] = warnings_of(row(kind), obj, None)
    assert name.startswith("metadata.name: this is used in Pod names and hostnames")
    assert memory.startswith(f"{place}.spec.containers[0].resources.limits[memory]: fractional")
    assert warnings_of(row(kind), obj, obj | {"metadata": {"name": "a.b", "generation": 1}}) == [memory]
    assert warnings_of(row(kind), obj, obj) == []
