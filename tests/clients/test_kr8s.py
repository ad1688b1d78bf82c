"""kr8s: an asynchronous client that asks discovery for everything, and watches."""

from __future__ import annotations

import itertools

import kr8s
import pytest
from kr8s.asyncio.objects import ConfigMap, Deployment, Namespace, Pod

pytestmark = pytest.mark.filterwarnings("ignore:Kubernetes version")  # it knows versions up to 1.35
_numbers = itertools.count(1)


@pytest.fixture
async def api(kubeconfig_file):
    return await kr8s.asyncio.api(kubeconfig=kubeconfig_file)


@pytest.fixture
async def namespace(api):
    made = await Namespace({"metadata": {"name": f"kr8s-{next(_numbers)}"}}, api=api)
    await made.create()
    yield made.name
    await made.delete()


async def test_the_usual_flow(api, namespace, make_deployment):
    version = await api.version()
    assert version["minor"] == "37"
    wanted = make_deployment("web")
    wanted["metadata"]["namespace"] = namespace
    web = await Deployment(wanted, api=api)
    await web.create()
    await web.wait("condition=Available", timeout=60)
    pods = [p async for p in kr8s.asyncio.get("pods", namespace=namespace, label_selector="app=web", api=api)]
    assert len(pods) == 2
    assert all([await p.ready() for p in pods])
    await web.scale(1)
    await web.refresh()
    assert web.replicas == 1
    await web.label(tier="front")
    await web.annotate(note="hello")
    await web.refresh()
    assert (web.labels["tier"], web.annotations["note"]) == ("front", "hello")
    await web.delete()
    await web.wait("delete", timeout=60)
    assert not await web.exists()


async def test_objects_and_patches(api, namespace):
    settings = await ConfigMap(
        {"metadata": {"name": "m", "namespace": namespace}, "data": {"k": "v"}}, api=api
    )
    await settings.create()
    await settings.patch({"data": {"l": "w"}})
    assert settings.data == {"k": "v", "l": "w"}
    found = await ConfigMap.get("m", namespace=namespace, api=api)
    assert found.raw["data"]["l"] == "w"
    with pytest.raises(kr8s.NotFoundError):
        await Pod.get("nobody", namespace=namespace, api=api, timeout=0.2)


async def test_resources_are_discovered(api):
    kinds = {r["kind"] for r in await api.api_resources()}
    assert {"Pod", "Deployment", "CustomResourceDefinition"} <= kinds
    assert await api.whoami() == "kubernetes-admin"
