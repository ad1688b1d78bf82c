"""Defaults as a user meets them; each kind is also run twice, for a default that moves would make every write a change."""

import copy

import pytest

from sampan.api import fields, schema
from sampan.api.defaults import apply_defaults, empty_status, schema_defaults
from sampan.api.defaults.pod import pull_policy
from sampan.api.registry import Resource
from sampan.api.resources import BUILTIN, lookup


def defaulted(api_version, kind, **content):
    row = lookup(api_version, kind)
    obj, _ = fields.normalize({"metadata": {"name": "x"}, **content}, schema.for_row(row), strict=True)
    apply_defaults(row, obj)
    return obj


def pod(**spec):
    return defaulted("v1", "Pod", spec={"containers": [{"name": "c", "image": "i"}], **spec})["spec"]


def container(**content):
    return pod(containers=[{"name": "c", "image": "i", **content}])["containers"][0]


@pytest.mark.parametrize("row", list(BUILTIN), ids=lambda r: f"{r.name}/{r.version}")
def test_an_empty_object_is_defaulted_once_and_for_all(row):
    obj = {}
    apply_defaults(row, obj)
    again = copy.deepcopy(obj)
    apply_defaults(row, again)
    assert again == obj
    assert fields.normalize(obj, schema.for_row(row), strict=True) == (obj, [])


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "a" * 64, "Always"),
    ],
)
def test_pull_policy(image, policy):
    assert pull_policy(image) == policy


def test_a_pod_gets_the_defaults_of_its_spec():
    spec = pod()
    assert spec["restartPolicy"] == "Always"
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["schedulerName"] == "default-scheduler"
    assert spec["enableServiceLinks"] is True
    assert spec["containers"][0]["terminationMessagePath"] == "/dev/termination-log"


def test_both_names_of_the_service_account_agree():
    assert pod(serviceAccount="s")["serviceAccountName"] == "s"
    assert pod(serviceAccountName="s")["serviceAccount"] == "s"


def test_the_address_of_a_pod_is_the_first_of_its_addresses():
    assert defaulted("v1", "Pod", status={"podIP": "10.0.0.1"})["status"]["podIPs"] == [{"ip": "10.0.0.1"}]
    assert defaulted("v1", "Pod", status={"podIPs": [{"ip": "10.0.0.1"}]})["status"]["podIP"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("given", "single", "listed"),
    [
        ({"podCIDR": "10.0.1.0/24"}, "10.0.1.0/24", ["10.0.1.0/24"]),
        ({"podCIDRs": ["10.0.1.0/24", "fd00::/64"]}, "10.0.1.0/24", ["10.0.1.0/24", "fd00::/64"]),
        ({"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00::/64"]}, "10.0.1.0/24", ["10.0.1.0/24", "fd00::/64"]),
        ({"podCIDR": "10.0.9.0/24", "podCIDRs": ["10.0.1.0/24"]}, "10.0.9.0/24", ["10.0.9.0/24"]),
    ],
)  # fmt: skip
def test_a_nodes_single_range_is_the_first_of_the_list(given, single, listed):
    spec = defaulted("v1", "Node", spec=given)["spec"]
    assert (spec["podCIDR"], spec["podCIDRs"]) == (single, listed)


def test_requests_follow_limits_in_pods_but_not_in_templates():
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}
    assert container(resources=resources)["resources"]["requests"] == {"cpu": "100m", "memory": "1Gi"}
    spec = {"template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}}}
    template = defaulted("apps/v1", "Deployment", spec=spec)["spec"]["template"]
    assert template["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}}


def test_requests_of_a_pod_as_a_whole():
    containers = [{"name": n, "resources": {"requests": {"cpu": "100m"}}} for n in "ab"]
    spec = pod(containers=containers, resources={"limits": {"cpu": "1", "memory": "1Gi"}})
    assert spec["resources"]["requests"] == {"cpu": "200m", "memory": "1Gi"}


def test_host_network_opens_the_same_port_on_the_host():
    containers = [{"name": "c", "ports": [{"containerPort": 80}]}]
    assert pod(hostNetwork=True, containers=containers)["containers"][0]["ports"][0]["hostPort"] == 80
    assert "hostPort" not in pod(containers=containers)["containers"][0]["ports"][0]


def test_a_volume_without_source_is_an_empty_directory():
    volumes = pod(
        volumes=[{"name": "a"}, {"name": "b", "hostPath": {"path": "/x"}}, {"name": "c", "configMap": {}}]
    )
    assert volumes["volumes"] == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "hostPath": {"path": "/x", "type": ""}},
        {"name": "c", "configMap": {"defaultMode": 420}},
    ]


def test_a_probe_gets_its_periods_and_thresholds():
    probe = container(livenessProbe={"httpGet": {"port": 80}})["livenessProbe"]
    assert probe == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"ports": [{"port": 80, "targetPort": 0}]},
            {"ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]},
        ),
        (
            {"type": "LoadBalancer"},
            {"allocateLoadBalancerNodePorts": True, "externalTrafficPolicy": "Cluster"},
        ),
        ({"sessionAffinity": "ClientIP"}, {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}),
        ({}, {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
    ],
)
def test_a_service_gets_what_suits_its_type(spec, expected):
    assert expected.items() <= defaulted("v1", "Service", spec=spec)["spec"].items()


def test_secret_text_becomes_data():
    secret = defaulted("v1", "Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"b": "new"})
    assert (secret["type"], secret["data"]) == ("Opaque", {"a": "YQ==", "b": "bmV3"})
    assert "stringData" not in secret


def test_limit_range():
    limits = [
        {"type": "Container", "min": {"cpu": "1m"}, "max": {"memory": "1Gi"}},
        {"type": "Pod", "max": {"cpu": "1"}},
    ]
    item, untouched = defaulted("v1", "LimitRange", spec={"limits": limits})["spec"]["limits"]
    assert item["default"] == {"memory": "1Gi"}
    assert item["defaultRequest"] == {"cpu": "1m", "memory": "1Gi"}
    assert "default" not in untouched


@pytest.mark.parametrize(
    ("spec", "completions", "parallelism", "backoff"),
    [
        ({}, 1, 1, 6),
        ({"parallelism": 3}, None, 3, 6),
        ({"completions": 3, "backoffLimitPerIndex": 1}, 3, 1, 2**31 - 1),
    ],
)
def test_a_job_runs_one_pod_unless_it_says_more(spec, completions, parallelism, backoff):
    found = defaulted("batch/v1", "Job", spec=spec)["spec"]
    assert found.get("completions") == completions
    assert (found["parallelism"], found["backoffLimit"]) == (parallelism, backoff)


def test_an_empty_egress_list_is_no_egress_policy():
    assert defaulted("networking.k8s.io/v1", "NetworkPolicy", spec={"egress": []})["spec"]["policyTypes"] == [
        "Ingress"
    ]


def test_autoscaler_without_metrics_targets_cpu_in_both_versions():
    assert (
        defaulted("autoscaling/v1", "HorizontalPodAutoscaler")["spec"]["targetCPUUtilizationPercentage"] == 80
    )
    (metric,) = defaulted("autoscaling/v2", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == 80


def test_empty_status():
    assert empty_status(lookup("v1", "Service")) == {"loadBalancer": {}}
    assert empty_status(lookup("storage.k8s.io/v1", "VolumeAttachment")) == {"attached": False}
    assert empty_status(lookup("v1", "ConfigMap")) is None


WIDGET = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "default": {},
            "properties": {
                "n": {"type": "integer", "default": 3},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}},
                },
                "nullable": {"type": "string", "nullable": True, "default": "d"},
            },
        }
    },
}


def test_custom_defaults_come_from_the_schema_and_look_inside_themselves():
    node = schema.from_openapi(WIDGET)
    obj = {}
    schema_defaults(obj, node)
    assert obj == {"spec": {"n": 3, "nullable": "d"}}
    obj = {"spec": {"n": None, "list": [{}], "nullable": None}}
    schema_defaults(obj, node)
    assert obj == {"spec": {"n": 3, "list": [{"a": "x"}], "nullable": None}}


def test_a_custom_row_finds_its_own_version():
    versions = [{"name": "v1"}, {"name": "v2", "schema": {"openAPIV3Schema": WIDGET}}]
    definition = {"spec": {"versions": versions}}
    row = Resource("example.com", "v2", "Widget", "widgets", True, custom=True, definition=definition)
    obj = {"spec": {}}
    apply_defaults(row, obj)
    assert obj["spec"]["n"] == 3
    assert schema.for_row(row) is schema.for_row(row)
