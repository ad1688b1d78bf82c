"""A container's environment, as the Kubernetes documentation describes it."""

from __future__ import annotations

import base64
import functools

import pytest

from sampan.node.pods import env
from sampan.node.pods.problems import ConfigProblem

POD = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u",
        "labels": {"a": "b"},
        "annotations": {"x/y": "z"},
    },
    "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": []},
}
CM = {"data": {"k": "v", "other": "w"}}
SECRET = {"data": {"s": base64.b64encode(b"secret").decode()}}
FOUND = {("configmaps", "cm"): CM, ("secrets", "sec"): SECRET}


def resolve(entries=(), sources=(), services=None, **container):
    container = {"name": "c", "env": list(entries), "envFrom": list(sources), **container}
    return env.resolve(
        POD,
        container,
        FOUND,
        services or {},
        ips=["10.0.0.1"],
        host_ips=["1.2.3.4"],
        allocatable={"cpu": "4"},
    )


@pytest.mark.parametrize(
    "text, expected",
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
    ],
)
def test_references_are_expanded_and_escapes_kept(text, expected):
    assert env.expand(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    "source, expected",
    [
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "metadata.labels['a']"}}, "b"),
        ({"fieldRef": {"fieldPath": "metadata.annotations['x/y']"}}, "z"),
        ({"fieldRef": {"fieldPath": "spec.nodeName"}}, "n1"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "10.0.0.1"),
        ({"fieldRef": {"fieldPath": "status.hostIP"}}, "1.2.3.4"),
        ({"configMapKeyRef": {"name": "cm", "key": "k"}}, "v"),
        ({"secretKeyRef": {"name": "sec", "key": "s"}}, "secret"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "4"),
        ({"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}, "64"),
        ({"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}, None),
    ],
)
def test_value_from(source, expected):
    found = resolve([{"name": "A", "valueFrom": source}], resources={"requests": {"memory": "64Mi"}})
    assert found.get("A") == expected


@pytest.mark.parametrize(
    "source, message",
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "x"}}, "couldn't find key x in ConfigMap ns/cm"),
        ({"secretKeyRef": {"name": "sec", "key": "x"}}, "couldn't find key x in Secret ns/sec"),
    ],
)
def test_what_is_missing_is_named(source, message):
    with pytest.raises(ConfigProblem, match="^" + message.replace("(", r"\(") + "$"):
        resolve([{"name": "A", "valueFrom": source}])


def test_later_variables_win_and_see_earlier_ones():
    found = resolve(
        [{"name": "k", "value": "own"}, {"name": "B", "value": "$(k)-$(SVC)"}],
        [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"configMapRef": {"name": "cm"}}],
        {"SVC": "10.96.0.1"},
    )
    assert found == {
        "P_k": "v",
        "P_other": "w",
        "k": "own",
        "other": "w",
        "B": "own-10.96.0.1",
        "SVC": "10.96.0.1",
    }


def test_service_variables():
    service = {
        "metadata": {"name": "my-db", "namespace": "ns"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
    }
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}
    found = env.service_variables(POD, lambda ns: [service, headless] if ns == "ns" else [])
    assert found == {
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL": "5432",
        "MY_DB_PORT": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
    }


FILE = {"volumeName": "v", "path": "f.env", "key": "A"}


@pytest.mark.parametrize(
    "files, optional, expected",
    [
        ({("v", "f.env"): {"A": "1"}}, False, {"X": "1"}),
        ({("v", "f.env"): {"B": "1"}}, False, "env file f.env of volume v has no key A"),
        ({("v", "f.env"): None}, False, "env file f.env of volume v does not exist"),
        ({("v", "f.env"): {"B": "1"}}, True, {}),
        ({("v", "f.env"): None}, True, {}),
    ],
)
def test_variables_from_a_file(files, optional, expected):
    container = {
        "name": "c",
        "env": [{"name": "X", "valueFrom": {"fileKeyRef": {**FILE, "optional": optional}}}],
    }
    ask = functools.partial(
        env.resolve, POD, container, {}, {}, ips=[], host_ips=[], allocatable={}, files=files
    )
    if isinstance(expected, str):
        with pytest.raises(ConfigProblem, match=expected):
            ask()
    else:
        assert ask() == expected
