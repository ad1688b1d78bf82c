from sampan.client.client import Client
from sampan.client.messages import User
from sampan.server import bootstrap

MASTER = User("system:apiserver", ("system:masters",))


async def test_what_is_missing_is_put_in_once(api):
    client = Client(api.server.handle, api.server.registry, user=MASTER)
    assert await bootstrap.ensure(client) == len(bootstrap.objects())
    assert await bootstrap.ensure(client) == 0
    own = bootstrap.kubernetes_service("192.0.2.1", 6443)
    assert await bootstrap.ensure(client, own) == 3
    assert await bootstrap.ensure(client, own) == 0
    moved = bootstrap.kubernetes_service("192.0.2.2", 6444)
    assert await bootstrap.ensure(client, moved) == 3
    found = await client.get("endpoints", "kubernetes", "default")
    assert found["subsets"][0]["addresses"] == [{"ip": "192.0.2.2"}]


async def test_rights_taken_away_come_back_unless_that_is_switched_off(api):
    client = Client(api.server.handle, api.server.registry, user=MASTER)
    await bootstrap.ensure(client)
    name = bootstrap.RESOURCES["ClusterRole"]
    role = await client.get(name, "system:discovery")
    assert role["rules"]
    role["rules"] = []
    await client.update(name, role)
    assert await bootstrap.ensure(client) == 1
    role = await client.get(name, "system:discovery")
    assert role["rules"]
    role["rules"] = []
    role["metadata"]["annotations"][bootstrap.AUTOUPDATE] = "false"
    await client.update(name, role)
    assert await bootstrap.ensure(client) == 0


def test_every_binding_names_a_role_there_is():
    objects = bootstrap.objects()
    roles = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects}
    for obj in objects:
        if obj["kind"].endswith("RoleBinding"):
            ref = obj["roleRef"]
            namespace = obj["metadata"].get("namespace", "") if ref["kind"] == "Role" else ""
            assert (ref["kind"], namespace, ref["name"]) in roles
