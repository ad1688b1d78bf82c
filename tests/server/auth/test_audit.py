import json

import orjson
import pytest

from sampan.client.messages import Request, User
from sampan.server.auth.audit import Audit, Log, Policy
from sampan.server.auth.authorize import Attributes

BOB = User("bob", ("dev",))


def asked(verb="create", resource="pods", group="", namespace="x", name="", subresource="", path=""):
    return Attributes(
        BOB, verb, group, "v1", resource, subresource, namespace, name, path, is_resource=not path
    )


def level(rules, what, user=BOB):
    rule = Policy({"rules": rules}).rule(user, what)
    return rule.level if rule else "None"


@pytest.mark.parametrize(
    ("rule", "what", "expected"),
    [
        ({}, asked(), "Metadata"),
        ({"users": ["eve"]}, asked(), "None"),
        ({"userGroups": ["dev"]}, asked(), "Metadata"),
        ({"verbs": ["get"]}, asked(), "None"),
        ({"namespaces": ["x"]}, asked(), "Metadata"),
        ({"namespaces": ["y"]}, asked(), "None"),
        ({"namespaces": ["x"]}, asked(path="/healthz"), "None"),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, asked(), "Metadata"),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, asked(subresource="log"), "None"),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, asked(subresource="log"), "Metadata"),
        ({"resources": [{"group": "apps"}]}, asked(), "None"),
        (
            {"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["a"]}]},
            asked(name="b"),
            "None",
        ),
        ({"nonResourceURLs": ["/healthz*"]}, asked(path="/healthz/x"), "Metadata"),
        ({"nonResourceURLs": ["/healthz*"]}, asked(), "None"),
    ],
)
def test_which_rule_speaks_of_a_request(rule, what, expected):
    assert level([{"level": "Metadata", **rule}], what) == expected


def test_the_first_rule_decides_and_mistakes_are_named():
    assert level([{"level": "None", "users": ["bob"]}, {"level": "Request"}], asked()) == "None"
    with pytest.raises(ValueError, match='unknown audit level "All"'):
        Policy({"rules": [{"level": "All"}]})
    with pytest.raises(ValueError, match="unknown audit stages"):
        Policy({"omitStages": ["Never"], "rules": [{"level": "Metadata"}]})


def record(facts, policy_level, **rule):
    """The lines of one request at a level."""
    lines = []
    policy = Policy({"omitStages": ["RequestReceived"], "rules": [{"level": policy_level, **rule}]})
    audit = Audit(policy, lines.append, facts.clock, facts.ids)
    body = orjson.dumps({"metadata": {"name": "p", "managedFields": [{}]}})
    request = Request(
        "POST", "/api/v1/namespaces/x/pods", "dryRun=All", {"user-agent": "t"}, body, remote="1.2.3.4"
    )
    begun = audit.begin(request, BOB, asked(), User("eve"))
    audit.finish(begun, 201, body)
    return [json.loads(line) for line in lines]


def test_a_line_tells_who_did_what(facts):
    [event] = record(facts, "Metadata")
    assert event["user"] == {"username": "bob", "groups": ["dev"]}
    assert event["impersonatedUser"] == {"username": "eve"}
    assert event["objectRef"] == {"resource": "pods", "namespace": "x", "apiVersion": "v1"}
    assert event["requestURI"] == "/api/v1/namespaces/x/pods?dryRun=All"
    assert (event["stage"], event["sourceIPs"], event["responseStatus"]["code"]) == (
        "ResponseComplete",
        ["1.2.3.4"],
        201,
    )
    assert "requestObject" not in event


def test_levels_say_how_much_is_kept(facts):
    [event] = record(facts, "Request")
    assert "managedFields" in event["requestObject"]["metadata"]
    assert "responseObject" not in event
    [event] = record(facts, "RequestResponse", omitManagedFields=True)
    assert event["responseObject"] == {"metadata": {"name": "p"}}


async def test_lines_reach_the_file_in_order(tmp_path):
    log = Log(tmp_path / "audit.log")
    for number in range(100):
        log.write(b"%d" % number)
    await log.close()
    assert (tmp_path / "audit.log").read_text().split() == [str(n) for n in range(100)]


async def audited(api, rules, *requests):
    """The lines that requests (method, path, body, user) leave at a server."""
    lines = []
    policy = Policy({"omitStages": ["RequestReceived"], "rules": rules})
    api.server.audit = Audit(policy, lines.append, api.clock, api.server.ids)
    for method, path, body, user in requests:
        await api.call(method, path, body, user=user)
    return [json.loads(line) for line in lines]


ADMIN = User("admin", ("system:masters", "system:authenticated"))


async def test_a_server_records_what_it_answered(api):
    body = {"metadata": {"name": "x"}}
    lines = await audited(
        api,
        [{"level": "RequestResponse"}],
        ("POST", "/api/v1/namespaces", body, ADMIN),
        ("POST", "/api/v1/namespaces", body, ADMIN),
        ("GET", "/api/v1/secrets", None, BOB),
    )
    made, again, refused = lines
    assert made["responseStatus"]["code"] == 201
    assert made["requestObject"]["metadata"]["name"] == made["responseObject"]["metadata"]["name"] == "x"
    assert made["annotations"] == {"authorization.k8s.io/decision": "allow"}
    assert (again["responseStatus"]["code"], again["responseStatus"]["reason"]) == (409, "AlreadyExists")
    assert refused["responseStatus"]["code"] == 403
    assert refused["annotations"] == {"authorization.k8s.io/decision": "forbid"}


async def test_a_watch_is_recorded_when_it_begins_and_when_it_ends(api):
    lines = []
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})
    api.server.audit = Audit(
        Policy({"rules": [{"level": "Metadata"}]}), lines.append, api.clock, api.server.ids
    )
    response = await api.response("GET", "/api/v1/namespaces?watch=1&timeoutSeconds=1")
    assert [json.loads(line)["stage"] for line in lines] == ["RequestReceived", "ResponseStarted"]
    body = aiter(response.body)
    await anext(body)
    await body.aclose()
    assert json.loads(lines[-1])["stage"] == "ResponseComplete"
