import json

import orjson
import pytest

from sampan.client.messages import Request, User
from sampan.server.audit import Audit, Log, Policy
from sampan.server.authorize import Attributes

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
