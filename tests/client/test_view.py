"""A view must equal the server's truth after any quiet moment, and never step back behind our own writes."""

from __future__ import annotations

import pytest

from sampan.client.view import CachedView, Scope


class _Labels:
    def __init__(self, **wanted):
        self.wanted = wanted

    def matches(self, labels):
        return all(labels.get(k) == v for k, v in self.wanted.items())


def pod(name, namespace="default", node="", owner="", **labels):
    meta = {"name": name, "namespace": namespace, "labels": labels}
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "kind": "ReplicaSet", "name": "x", "controller": True}]
    return {"metadata": meta, "spec": {"nodeName": node} if node else {}}


@pytest.fixture
async def view(client, clock, ids):
    made = CachedView(client, ["pods", "nodes"], clock=clock, ids=ids)
    yield made
    await made.stop()


def names(objects):
    return [o["metadata"]["name"] for o in objects]


async def test_it_begins_with_what_is_there_and_follows(view, client, clock):
    await client.create("pods", pod("a", node="n1", app="web"))
    await view.start()
    await client.create("pods", pod("b", owner="u1"))
    await client.create("pods", pod("c", namespace="other", node="n1"))
    await clock.settle()
    assert names(view.list("pods")) == ["a", "b", "c"]
    assert names(view.list("pods", "default")) == ["a", "b"]
    assert names(view.selected("pods", "default", _Labels(app="web"))) == ["a"]
    assert names(view.owned("pods", "u1")) == ["b"] and names(view.owned("pods", "")) == ["a", "c"]
    assert names(view.indexed("pods", "spec.nodeName", "n1")) == ["a", "c"]
    assert [(r, o["metadata"]["name"]) for r, o in view.dependents("u1")] == [("pods", "b")]
    assert [(r, o["metadata"]["name"]) for r, o in view.contents("other")] == [("pods", "c")]
    await client.delete("pods", "a", "default")
    await clock.settle()
    assert view.get("pods", "a", "default") is None and names(
        view.indexed("pods", "spec.nodeName", "n1")
    ) == ["c"]


async def test_listeners_hear_old_and_new(view, client, clock):
    heard = []

    def listen(resource, old, new):
        heard.append((resource, old and old["spec"].get("nodeName"), new and new["spec"].get("nodeName")))

    view.subscribe(listen)
    await view.start()
    await client.create("pods", pod("a", node="n1"))
    await client.patch("pods", "a", {"spec": {"nodeName": "n2"}}, "default")
    await client.delete("pods", "a", "default")
    await clock.settle()
    assert heard == [("pods", None, "n1"), ("pods", "n1", "n2"), ("pods", "n2", None)]


async def test_a_write_is_seen_at_once_and_told_once(view, client, clock):
    await view.start()
    heard = []
    view.subscribe(lambda *change: heard.append(change))
    made = await client.create("pods", pod("a"))
    view.apply_result("pods", made)
    assert view.get("pods", "a", "default") is made
    await clock.settle()
    assert len(heard) == 1 and view.get("pods", "a", "default") == made
    entry = view._streams["pods"].table.entries["default", "a"]
    assert entry.value is not None


async def test_an_answer_that_comes_late_changes_nothing(view, client, clock):
    await view.start()
    old = await client.create("pods", pod("a"))
    await client.patch("pods", "a", {"metadata": {"labels": {"x": "y"}}}, "default")
    await clock.settle()
    view.apply_result("pods", old)
    assert view.get("pods", "a", "default")["metadata"]["labels"] == {"x": "y"}
    await client.delete("pods", "a", "default")
    await clock.settle()
    view.apply_result("pods", old)
    assert view.get("pods", "a", "default") is None


async def test_a_deletion_is_seen_at_once_and_late_news_do_not_revive(view, client, clock):
    await view.start()
    made = await client.create("pods", pod("a"))
    view.apply_result("pods", made)
    await client.delete("pods", "a", "default")
    view.apply_deletion("pods", "a", "default")
    assert view.get("pods", "a", "default") is None
    heard = []
    view.subscribe(lambda *change: heard.append(change))
    await clock.settle()  # now the watch tells of the creation and the deletion
    assert view.get("pods", "a", "default") is None and heard == []
    again = await client.create("pods", pod("a"))
    await clock.settle()
    assert view.get("pods", "a", "default") == again


async def test_after_a_disconnect_it_continues_where_it_was(view, client, clock, server):
    await view.start()
    await client.create("pods", pod("a"))
    await clock.settle()
    server.disconnect()
    await client.create("pods", pod("b"))
    await clock.advance(1)
    assert names(view.list("pods")) == ["a", "b"]
    assert [entry for entry in server.log if entry == ("WATCH", "pods@")] == [("WATCH", "pods@")]


async def test_when_history_is_gone_it_lists_anew(view, client, clock, server):
    await view.start()
    await client.create("pods", pod("a"))
    await client.create("pods", pod("b"))
    await clock.settle()
    server.disconnect()
    await client.delete("pods", "a", "default")
    for n in range(80):
        await client.patch("pods", "b", {"metadata": {"labels": {"n": str(n)}}}, "default")
    heard = []
    view.subscribe(lambda r, old, new: heard.append((old and 1, new and 1)))
    await clock.advance(5)
    assert names(view.list("pods")) == ["b"]
    assert view.get("pods", "b", "default")["metadata"]["labels"] == {"n": "79"}
    assert sorted(heard, key=str) == [(1, 1), (1, None)]


async def test_few_objects_stay_decoded(client, clock, ids):
    view = CachedView(client, ["pods"], clock=clock, ids=ids, decoded=1500)
    for n in range(50):
        await client.create("pods", pod(f"p{n:02}"))
    await view.start()
    assert len(view.list("pods")) == 50
    entries = view._streams["pods"].table.entries.values()
    kept = [len(entry.value) for entry in entries if entry.obj is not None]
    assert 0 < len(kept) < 50 and 1300 < sum(kept) <= 1500
    await view.stop()


async def test_a_scope_may_hold_metadata_only(client, clock, ids):
    view = CachedView(client, ["pods"], clock=clock, ids=ids, scopes={"pods": Scope(metadata_only=True)})
    await client.create("pods", pod("a", node="n1", app="web"))
    await view.start()
    assert set(view.get("pods", "a", "default")) == {"apiVersion", "kind", "metadata"}
    await view.stop()


async def test_everything_includes_what_is_defined_later(client, clock, ids, server):
    from sampan.api.registry import Resource

    definitions = Resource(
        "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False
    )
    server.registry.add(definitions)
    view = CachedView(client, ["*"], clock=clock, ids=ids)
    await view.start()
    boats = Resource("sea.io", "v1", "Boat", "boats", True)
    server.registry.add(boats)
    await client.create(definitions, {"metadata": {"name": "boats.sea.io"}})
    await client.create(
        boats, {"metadata": {"name": "sampan", "namespace": "harbour"}, "spec": {"planks": 3}}
    )
    await clock.settle()
    assert [(r, o["metadata"]["name"]) for r, o in view.contents("harbour")] == [("boats.sea.io", "sampan")]
    server.registry.remove(boats)
    await client.delete(definitions, "boats.sea.io")
    await clock.settle()
    assert view.contents("harbour") == []
    await view.stop()


async def test_a_kind_that_cannot_be_read_keeps_nobody_waiting(client, clock, ids, server):
    from sampan.api.registry import Resource
    from sampan.api.status import internal

    def broken(request):
        if request.path.endswith("/boats"):
            raise internal("conversion webhook failed")

    boats = Resource("sea.io", "v1", "Boat", "boats", True)
    server.registry.add(boats)
    await client.create(boats, {"metadata": {"name": "sampan", "namespace": "harbour"}})
    server.refuse = broken
    view = CachedView(client, ["pods", "*"], clock=clock, ids=ids)
    await view.start()
    assert view.unseen() == ["boats.sea.io"]
    server.refuse = lambda request: None
    await clock.advance(60)
    assert view.unseen() == []
    assert [r for r, _ in view.contents("harbour")] == ["boats.sea.io"]
    await view.stop()


async def test_who_set_which_field_is_not_shown(view, client, clock):
    await view.start()
    written = pod("a")
    written["metadata"]["managedFields"] = [{"manager": "x", "fieldsV1": {"f:spec": {}}}]
    await client.create("pods", written)
    await clock.settle()
    shown = view.get("pods", "a", "default")
    assert shown["spec"] == {} and "managedFields" not in shown["metadata"]
