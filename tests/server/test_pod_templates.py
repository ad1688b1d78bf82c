"""A pod that differs from one before in its name only becomes what it would have become without that one."""

import random

import orjson
import pytest

from sampan.base import pki
from sampan.base.clock import VirtualClock
from sampan.base.ids import Ids
from sampan.client.messages import Request, User
from sampan.cluster.planks import ControlPlane, Options
from sampan.server import decode
from sampan.store.memory import MemoryStore

ADMIN = User("admin", ("system:masters", "system:authenticated"))
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
TEAM = "/api/v1/namespaces/team"
PODS = TEAM + "/pods"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}


async def send(plane, method, path, body=b"", headers=None, user=ADMIN):
    path, _, query = path.partition("?")
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    given = {"user-agent": "test/1", **(headers or {})}
    return await plane.server.handle(Request(method, path, query, given, text, user=user))


async def new_plane():
    clock = VirtualClock()
    options = Options(pki.new_key(), controllers=False, scheduler=False)
    plane = ControlPlane(MemoryStore(clock), clock, Ids(seed=1), options)
    await plane.start()
    await send(plane, "POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await send(plane, "POST", TEAM + "/serviceaccounts", {"metadata": {"name": "default"}})
    return plane


@pytest.fixture
async def plane():
    plane = await new_plane()
    yield plane
    await plane.stop()


@pytest.fixture
async def forgetful():
    """Another one that has all the same, but learns nothing of what it did before."""
    plane = await new_plane()
    plane.server.pod_templates.learn = lambda *what: None
    yield plane
    await plane.stop()


def pod(name="a", image="app:1", meta=None, **spec):
    named = {"name": name} if name else {"generateName": "some-"}
    container = {"name": "main", "image": image, "resources": {"requests": {"cpu": "100m"}}}
    return {
        "metadata": {**named, "labels": {"app": "web"}, **(meta or {})},
        "spec": {"containers": [container], **spec},
    }


def text(name, template):
    """Bodies that are odd in some way, too."""
    match template:
        case "kind":
            return orjson.dumps({"apiVersion": "v1", "kind": "Pod", **pod(name)})
        case "spaced":
            return orjson.dumps(pod(name), option=orjson.OPT_INDENT_2)
        case "label":  # the name is there twice
            return orjson.dumps(pod(name, meta={"labels": {"app": name}}))
        case "host":
            return orjson.dumps(pod(name, hostname="a", subdomain="b"))
        case "escaped":  # the name is not where its text is
            return orjson.dumps(pod("@", meta={"labels": {"x": name}})).replace(
                b"@", b"\\u0061-%b" % name.encode()
            )
        case "twice":
            return orjson.dumps(pod(name)).replace(b'"labels"', b'"labels":{"a":"b"},"labels"')
        case "unknown":
            return orjson.dumps(pod(name, colour="red"))
        case "class":
            return orjson.dumps(pod(name, priorityClassName="high"))
        case "gated":
            return orjson.dumps(pod(name, schedulingGates=[{"name": "example.com/g"}]))
        case "managed":
            entry = {
                "manager": "m",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2020-01-01T00:00:00Z",
            }
            return orjson.dumps(pod(name, meta={"managedFields": [entry]}))
        case "privileged":
            return orjson.dumps(pod(name, hostNetwork=True))
        case "invalid":
            return orjson.dumps(pod(name, restartPolicy="Sometimes"))
        case "elsewhere":
            return orjson.dumps(pod(name, meta={"namespace": "default"}))
        case "generated":
            return orjson.dumps(pod(""))
        case _:
            return orjson.dumps(pod(name))


TEMPLATES = (
    "plain",
    "kind",
    "spaced",
    "label",
    "host",
    "escaped",
    "twice",
    "unknown",
    "class",
    "gated",
    "managed",
)
TEMPLATES += ("privileged", "invalid", "elsewhere", "generated", "plain", "generated")
NAMES = (
    "a",
    "b",
    "web-1",
    "web-2",
    "x.y",
    "main",
    "app",
    "Bad",
    "-a",
    "a..b",
    "a b",
    'q"',
    "\u00e9",
    "n" * 253,
    "n" * 254,
)
QUERIES = (
    "",
    "",
    "",
    "?fieldManager=me",
    "?fieldValidation=Strict",
    "?fieldValidation=Ignore",
    "?dryRun=All",
)
AGENTS = (
    {},
    {},
    {"user-agent": "other/2"},
    {"content-type": "application/json"},
    {"content-type": "application/yaml"},
)
AGENTS += (
    {"content-type": "application/json; charset=utf-8"},
    {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
)

LIMITS = {"limits": [{"type": "Container", "default": {"cpu": "300m"}, "max": {"cpu": "1"}}]}
POLICY = {
    "metadata": {"name": "p"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "validations": [{"expression": "object.metadata.name.startsWith('web')"}],
    },
}
BINDING = {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
CLASS = {"value": 7, "globalDefault": True}
# What changes the cluster around new pods, and takes it back.
CHANGES = (
    ("POST", TEAM + "/limitranges", {"metadata": {"name": "l"}, "spec": LIMITS}),
    ("DELETE", TEAM + "/limitranges/l", b""),
    ("POST", TEAM + "/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "20"}}}),
    ("DELETE", TEAM + "/resourcequotas/q", b""),
    ("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "high"}, **CLASS}),
    ("DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/high", b""),
    ("PATCH", TEAM + "/serviceaccounts/default", {"imagePullSecrets": [{"name": "s"}]}),
    ("PATCH", TEAM + "/serviceaccounts/default", {"automountServiceAccountToken": False}),
    (
        "PATCH",
        "/api/v1/namespaces/team",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
    ),
    (
        "PATCH",
        "/api/v1/namespaces/team",
        {"metadata": {"labels": {"pod-security.kubernetes.io/warn": "restricted"}}},
    ),
    ("PATCH", "/api/v1/namespaces/team", {"metadata": {"labels": None}}),
    ("POST", POLICIES, POLICY),
    ("POST", POLICIES[: -len("policies")] + "policybindings", BINDING),
    ("DELETE", POLICIES[: -len("policies")] + "policybindings/b", b""),
    ("DELETE", PODS + "/a?gracePeriodSeconds=0", b""),
    ("DELETE", PODS + "/web-1?gracePeriodSeconds=0", b""),
)


LATER = (
    ("POST", "/binding", {"target": {"kind": "Node", "name": "n1"}}),
    (
        "PATCH",
        "/status",
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
    ),
    ("PATCH", "/status", {"status": {"qosClass": None, "message": "m"}}),
    ("PATCH", "", {"metadata": {"labels": {"app": None, "x": "y"}, "annotations": {"a": "b"}}}),
    ("PATCH", "", {"spec": {"activeDeadlineSeconds": 9, "containers": [{"name": "main", "image": "app:9"}]}}),
)


@pytest.mark.parametrize("seed", range(12))
async def test_every_answer_is_that_of_a_server_that_learns_nothing(plane, forgetful, seed):
    dice = random.Random(seed)
    for _ in range(200):
        step = dice.random()
        if step < 0.1:
            method, path, body = dice.choice(CHANGES)
            asked = (method, path, body, MERGE if method == "PATCH" else {})
        elif step < 0.2:
            seconds = dice.choice((0.3, 1, 60))
            await plane.clock.advance(seconds)
            await forgetful.clock.advance(seconds)
            continue
        elif step < 0.35:  # what happens to one must not happen to the others
            method, below, body = dice.choice(LATER)
            path = f"{PODS}/pod-{dice.randrange(100)}{below}"
            asked = (method, path, body, STRATEGIC if method == "PATCH" else {})
        else:
            name = dice.choice(NAMES) if dice.random() < 0.4 else f"pod-{dice.randrange(100)}"
            body = text(name, dice.choice(TEMPLATES[seed % 4 :: 2]))
            asked = ("POST", PODS + dice.choice(QUERIES), body, dice.choice(AGENTS))
        answers = [await send(p, *asked) for p in (plane, forgetful)]
        first, second = ((a.status, dict(a.headers), a.body) for a in answers)
        assert first == second, asked
    found, expected = (p.store.list("pods").items for p in (plane, forgetful))
    assert [(i.key, i.value, i.labels, i.fields) for i in found] == [
        (i.key, i.value, i.labels, i.fields) for i in expected
    ]
    row = plane.server.registry.get("pods")
    for item in found:
        assert plane.server.recent.load(item, row) == orjson.loads(item.value)


@pytest.fixture
def read(monkeypatch):
    """How often a body was decoded, as one that was not known before is."""
    count = []
    body = decode.body
    monkeypatch.setattr(decode, "body", lambda *what, **more: count.append(1) or body(*what, **more))
    return count


async def create(plane, body, **more):
    answer = await send(plane, "POST", PODS, body, **more)
    assert answer.status == 201, answer.body
    return orjson.loads(answer.body)


async def test_a_template_is_looked_at_once(plane, read):
    made = [await create(plane, pod(f"web-{number}")) for number in range(5)]
    assert len(read) == 1
    assert [p["metadata"]["name"] for p in made] == [f"web-{number}" for number in range(5)]
    assert len({p["metadata"]["uid"] for p in made}) == 5
    await create(plane, pod("other", image="app:2"))
    await create(plane, pod("another", image="app:2"))
    assert len(read) == 2


async def test_so_is_one_of_pods_with_generated_names(plane, read):
    names = {(await create(plane, pod("")))["metadata"]["name"] for _ in range(5)}
    assert len(read) == 1 and len(names) == 5 and all(name.startswith("some-") for name in names)


async def test_a_generated_name_that_is_taken_is_not_the_last_word(plane, monkeypatch):
    suffixes = iter(("aaaaa", "aaaaa", "aaaaa", "bbbbb"))
    monkeypatch.setattr(plane.server.ids, "suffix", lambda: next(suffixes))
    assert [(await create(plane, pod("")))["metadata"]["name"] for _ in range(2)] == [
        "some-aaaaa",
        "some-bbbbb",
    ]


async def test_a_change_of_what_admission_looks_at_counts_for_the_next_pod(plane, read):
    for number in range(2):
        await create(plane, pod(f"web-{number}"))
    await send(plane, "POST", TEAM + "/limitranges", {"metadata": {"name": "l"}, "spec": LIMITS})
    read.clear()
    for number in range(2, 5):
        made = await create(plane, pod(f"web-{number}"))
        assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "300m"}
    assert len(read) == 1


async def test_where_a_quota_counts_pods_every_one_is_looked_at(plane):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}}
    await send(plane, "POST", TEAM + "/resourcequotas", quota)
    answers = [(await send(plane, "POST", PODS, pod(f"web-{number}"))).status for number in range(5)]
    assert answers == [201, 201, 201, 403, 403]


async def test_what_a_node_may_create_is_decided_for_each(plane):
    await create(plane, pod("a"))
    await create(plane, pod("b"))
    assert (await send(plane, "POST", PODS, pod("c"), user=NODE)).status == 403


async def test_every_plugin_says_what_it_looks_at(plane):
    """Or no pod would have a template."""
    assert {"namespaces", "limitranges", "serviceaccounts"} <= set(plane.server.admission.reads("pods"))
