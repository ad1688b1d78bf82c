"""lightkube: typed resources over httpx, apply, watch, wait, custom resources."""

from __future__ import annotations

import pytest
from lightkube import ApiError, Client, codecs
from lightkube.generic_resource import create_namespaced_resource, load_in_cluster_generic_resources
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod
from lightkube.types import PatchType

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.light.example.com}
spec:
  group: light.example.com
  scope: Namespaced
  names: {plural: lamps, singular: lamp, kind: Lamp}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {watts: {type: integer}}
            x-kubernetes-validations: [{rule: self.watts < 100, message: too bright}]
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


@pytest.fixture
def api(kubeconfig_file):
    return Client(field_manager="lightkube-test")


@pytest.fixture
def namespace(api):
    made = api.create(Namespace(metadata=ObjectMeta(generateName="light-")))
    yield made.metadata.name
    api.delete(Namespace, made.metadata.name)


def test_create_get_list_patch_delete(api, namespace):
    api.create(ConfigMap(metadata=ObjectMeta(name="m", namespace=namespace), data={"k": "v"}))
    assert api.get(ConfigMap, "m", namespace=namespace).data == {"k": "v"}
    api.patch(ConfigMap, "m", {"data": {"l": "w"}}, namespace=namespace, patch_type=PatchType.MERGE)
    found = {m.metadata.name: m.data for m in api.list(ConfigMap, namespace=namespace)}
    assert found["m"] == {"k": "v", "l": "w"}
    api.delete(ConfigMap, "m", namespace=namespace)
    with pytest.raises(ApiError) as caught:
        api.get(ConfigMap, "m", namespace=namespace)
    assert caught.value.status.code == 404


def test_apply_and_wait_for_a_deployment(api, namespace, make_deployment):
    wanted = make_deployment("web")
    wanted["metadata"]["namespace"] = namespace
    api.apply(Deployment.from_dict(wanted))
    ready = api.wait(Deployment, "web", for_conditions=["Available"], namespace=namespace)
    assert ready.status.readyReplicas == 2
    pods = list(api.list(Pod, namespace=namespace, labels={"app": "web"}))
    assert len(pods) == 2
    scale = api.get(Deployment.Scale, "web", namespace=namespace)
    scale.spec.replicas = 1
    api.replace(scale, "web", namespace=namespace)
    for _, seen in api.watch(Deployment, namespace=namespace):
        if seen.status and seen.status.replicas == 1:
            break


def test_custom_resources(api, namespace):
    for obj in codecs.load_all_yaml(CRD):
        api.apply(obj)
    load_in_cluster_generic_resources(api)
    lamp = create_namespaced_resource("light.example.com", "v1", "Lamp", "lamps")
    api.create(lamp(metadata={"name": "desk"}, spec={"watts": 40}), namespace=namespace)
    api.patch(lamp.Status, "desk", {"status": {"on": True}}, namespace=namespace, patch_type=PatchType.MERGE)
    assert api.get(lamp, "desk", namespace=namespace).status == {"on": True}
    with pytest.raises(ApiError, match="too bright"):
        api.create(lamp(metadata={"name": "sun"}, spec={"watts": 4000}), namespace=namespace)
