import timeit

import pytest

from sampan.client.messages import User
from sampan.server import bootstrap
from sampan.server.auth.authorize import Attributes, Authorizer, refusal

BOB = User("bob", ("dev", "system:authenticated"))
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
def authorizer(facts):
    return Authorizer(facts.lookup)


def rule(verbs, resources, groups=("",), **more):
    return {"verbs": list(verbs), "resources": list(resources), "apiGroups": list(groups), **more}


def grant(facts, *rules, namespace="", user="bob", kind="User", name="b", role_kind=None, role="r"):
    """A role with these rules and a binding of it."""
    cluster = "" if namespace else "Cluster"
    role_kind = role_kind or f"{cluster}Role"
    facts.make(role_kind, role, namespace if role_kind == "Role" else "", rules=list(rules))
    subject = {"kind": kind, "apiGroup": RBAC, "name": user}
    if kind == "ServiceAccount":
        subject = {"kind": kind, "name": user}
    ref = {"apiGroup": RBAC, "kind": role_kind, "name": role}
    facts.make(f"{cluster}RoleBinding", name, namespace, roleRef=ref, subjects=[subject])


def ask(verb, resource="", group="", namespace="", name="", path=""):
    resource, _, subresource = resource.partition("/")
    return Attributes(
        BOB, verb, group, "v1", resource, subresource, namespace, name, path, is_resource=not path
    )


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        (rule(["get"], ["pods"]), ask("get", "pods", namespace="x", name="p"), True),
        (rule(["get"], ["pods"]), ask("list", "pods"), False),
        (rule(["*"], ["pods"]), ask("anything", "pods"), True),
        (rule(["get"], ["pods"]), ask("get", "pods", "apps"), False),
        (rule(["get"], ["pods"], ["*"]), ask("get", "pods", "apps"), True),
        (rule(["get"], ["*"]), ask("get", "pods/log"), True),
        (rule(["get"], ["pods"]), ask("get", "pods/log"), False),
        (rule(["get"], ["pods/log"]), ask("get", "pods/log"), True),
        (rule(["get"], ["pods/log"]), ask("get", "pods"), False),
        (rule(["get"], ["*/scale"], ["*"]), ask("get", "deployments/scale", "apps"), True),
        (rule(["get"], ["*/scale"], ["*"]), ask("get", "deployments", "apps"), False),
        (rule(["get"], ["pods"], resourceNames=["a"]), ask("get", "pods", name="a"), True),
        (rule(["get"], ["pods"], resourceNames=["a"]), ask("get", "pods", name="b"), False),
        (rule(["list"], ["pods"], resourceNames=["a"]), ask("list", "pods"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}, ask("get", path="/healthz/ping"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}, ask("get", path="/healthz/ping"), False),
        ({"verbs": ["*"], "nonResourceURLs": ["*"]}, ask("post", path="/x"), True),
        (rule(["*"], ["*"], ["*"]), ask("get", path="/healthz"), False),
    ],
)
def test_a_rule_allows_what_it_names(facts, authorizer, given, asked, expected):
    grant(facts, given)
    assert authorizer.authorize(BOB, asked)[0] is expected


def test_a_role_binding_holds_in_its_namespace_only(facts, authorizer):
    grant(facts, rule(["list"], ["pods"]), namespace="x", role_kind="ClusterRole")
    assert authorizer.authorize(BOB, ask("list", "pods", namespace="x")) == (
        True,
        'RBAC: allowed by RoleBinding "b/x" of ClusterRole "r" to User "bob"',
    )
    assert not authorizer.authorize(BOB, ask("list", "pods", namespace="y"))[0]
    assert not authorizer.authorize(BOB, ask("list", "pods"))[0]


@pytest.mark.parametrize(
    ("kind", "subject", "user"),
    [
        ("Group", "dev", BOB),
        ("ServiceAccount", "app", User("system:serviceaccount:x:app")),
        (
            "Group",
            "system:serviceaccounts:x",
            User("system:serviceaccount:x:app", ("system:serviceaccounts:x",)),
        ),
    ],
)
def test_a_binding_gives_its_rights_to_its_subjects_only(facts, authorizer, kind, subject, user):
    grant(facts, rule(["list"], ["pods"]), namespace="x", user=subject, kind=kind)
    assert authorizer.authorize(user, ask("list", "pods", namespace="x"))[0]
    assert not authorizer.authorize(User("eve"), ask("list", "pods", namespace="x"))[0]


def test_rights_follow_changes_of_roles_and_bindings(facts, authorizer):
    asked = ask("list", "pods", namespace="x")
    assert not authorizer.authorize(BOB, asked)[0]
    grant(facts, rule(["list"], ["pods"]), namespace="x")
    assert authorizer.authorize(BOB, asked)[0]
    facts.make("ConfigMap", "unrelated", "x")
    assert authorizer.authorize(BOB, asked)[0]
    facts.remove("RoleBinding", "x/b")
    assert not authorizer.authorize(BOB, asked)[0]


def test_masters_may_do_everything(authorizer):
    assert authorizer.authorize(User("root", ("system:masters",)), ask("delete", "nodes")) == (True, "")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            ask("list", "pods", namespace="y"),
            'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "y"',
        ),
        (
            ask("get", "pods/log", namespace="y", name="p"),
            'pods "p" is forbidden: User "bob" cannot get resource "pods/log" in API group "" in the namespace "y"',
        ),
        (
            ask("get", "things", "a.b", name="n"),
            'things.a.b "n" is forbidden: User "bob" cannot get resource "things" in API group "a.b" at the cluster scope',
        ),
        (ask("get", path="/<x>"), 'forbidden: User "bob" cannot get path "/&lt;x&gt;"'),
    ],
)
def test_refusals_have_the_words_of_the_original(authorizer, asked, text):
    allowed, reason = authorizer.authorize(BOB, asked)
    assert not allowed
    error = refusal(BOB, asked, reason)
    assert (error.code, error.reason, error.message) == (403, "Forbidden", text)


def test_a_binding_to_a_missing_role_is_named(facts, authorizer):
    facts.make(
        "RoleBinding",
        "b",
        "x",
        roleRef={"kind": "Role", "name": "none"},
        subjects=[{"kind": "User", "name": "bob"}],
    )
    allowed, reason = authorizer.authorize(BOB, ask("list", "pods", namespace="x"))
    assert (allowed, reason) == (False, f'RBAC: role.{RBAC} "none" not found')


DEFAULT_RIGHTS = [
    # (user, what, allowed)
    (User("a", ("system:masters",)), ask("delete", "nodes"), True),
    (User("a", ("system:authenticated",)), ask("get", path="/apis/apps"), True),
    (
        User("a", ("system:authenticated",)),
        ask("create", "selfsubjectaccessreviews", "authorization.k8s.io"),
        True,
    ),
    (User("a", ("system:unauthenticated",)), ask("get", path="/healthz"), True),
    (User("a", ("system:unauthenticated",)), ask("get", path="/apis"), False),
    (User("system:kube-scheduler"), ask("create", "pods/binding", namespace="x", name="p"), True),
    (
        User("system:serviceaccount:kube-system:deployment-controller"),
        ask("create", "replicasets", "apps", "x"),
        True,
    ),
    (User("system:serviceaccount:kube-system:deployment-controller"), ask("list", "secrets"), False),
    (User("system:serviceaccount:kube-system:namespace-controller"), ask("list", "anything", "a.b"), True),
    (
        User("system:bootstrap:abc", ("system:bootstrappers",)),
        ask("create", "certificatesigningrequests", "certificates.k8s.io"),
        True,
    ),
    (User("bob"), ask("create", "deployments", "apps", "edit"), True),
    (User("bob"), ask("list", "secrets", namespace="edit"), True),
    (User("bob"), ask("create", "rolebindings", RBAC, "edit"), False),
    (User("bob"), ask("list", "pods", namespace="view"), True),
    (User("bob"), ask("list", "secrets", namespace="view"), False),
    (User("bob"), ask("create", "rolebindings", RBAC, "admin"), True),
    (User("bob"), ask("get", "pods/log", namespace="admin", name="p"), True),
]


@pytest.mark.parametrize(("user", "asked", "allowed"), DEFAULT_RIGHTS)
def test_default_roles(facts, authorizer, user, asked, allowed):
    for obj in bootstrap.objects():
        if obj["kind"] in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
            facts.put(obj)
    for role in ("admin", "edit", "view"):
        ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
        facts.make("RoleBinding", "b", role, roleRef=ref, subjects=[{"kind": "User", "name": "bob"}])
    assert authorizer.authorize(user, asked)[0] is allowed


def test_a_repeated_decision_is_cheap(facts, authorizer):
    for obj in bootstrap.objects():
        if "Role" in obj["kind"]:
            facts.put(obj)
    user, asked = User("a", ("system:authenticated",)), ask("get", path="/apis/apps")
    authorizer.authorize(user, asked)
    best = min(timeit.repeat(lambda: authorizer.authorize(user, asked), number=1000, repeat=5)) / 1000
    assert best < 25e-6  # measured: about 1.5 microseconds
