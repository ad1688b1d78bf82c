import pytest

from sampan.testing import Cluster

SLICES = "endpointslices.discovery.k8s.io"


@pytest.mark.parametrize("resource", ["services", "endpoints", SLICES])
async def test_the_service_of_the_api_comes_back_at_its_address(resource):
    async with Cluster(nodes=0, advertise=("10.0.0.1", 6443)) as cluster:
        before = await cluster.client.get("services", "kubernetes", "default")
        await cluster.client.delete(resource, "kubernetes", "default")
        await cluster.settle()
        service = await cluster.client.get("services", "kubernetes", "default")
        assert service["spec"]["clusterIP"] == before["spec"]["clusterIP"]
        for behind in ("endpoints", SLICES):
            assert await cluster.client.get(behind, "kubernetes", "default")


async def test_all_services_may_be_deleted():
    async with Cluster(nodes=0, advertise=("10.0.0.1", 6443)) as cluster:
        for service in (await cluster.client.list("services", "default"))["items"]:
            await cluster.client.delete("services", service["metadata"]["name"], "default")
        await cluster.advance(60)
        assert await cluster.client.get("services", "kubernetes", "default")
        assert (await cluster.client.get("endpoints", "kubernetes", "default"))["subsets"]
