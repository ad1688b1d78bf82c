import pytest

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base import pki
from sampan.client.messages import User
from sampan.server.auth import reviews
from sampan.server.auth.authenticate import Authenticator, read_tokens
from sampan.server.auth.authorize import Authorizer
from sampan.server.auth.escalation import check_escalation
from sampan.server.auth.impersonate import impersonate
from sampan.server.auth.tokens import TokenIssuer

RBAC = "rbac.authorization.k8s.io"
BOB = User("bob", ("system:authenticated",))
MASTER = User("root", ("system:masters",))


@pytest.fixture
def authorizer(facts):
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    may(facts, *rules)
    return Authorizer(facts.lookup)


def may(facts, *rules, name="r"):
    """Bob may do this in namespace x."""
    facts.make("Role", name, "x", rules=list(rules))
    ref = {"apiGroup": RBAC, "kind": "Role", "name": name}
    facts.make("RoleBinding", name, "x", roleRef=ref, subjects=[{"kind": "User", "name": "bob"}])


def asked(verb="list", **more):
    return {"namespace": "x", "verb": verb, "resource": "configmaps", **more}


def test_subject_access_review(authorizer):
    obj = {"kind": "SubjectAccessReview", "spec": {"user": "bob", "resourceAttributes": asked()}}
    reason = 'RBAC: allowed by RoleBinding "r/x" of Role "r" to User "bob"'
    assert reviews.subject_access_review(obj, authorizer)["status"] == {"allowed": True, "reason": reason}
    obj["spec"]["resourceAttributes"]["verb"] = "delete"
    assert reviews.subject_access_review(obj, authorizer)["status"] == {"allowed": False}


def test_self_subject_access_review(authorizer):
    obj = {"spec": {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}}
    assert reviews.self_subject_access_review(obj, BOB, authorizer)["status"] == {"allowed": False}
    assert reviews.self_subject_access_review(obj, MASTER, authorizer)["status"] == {"allowed": True}


@pytest.mark.parametrize(
    ("spec", "field", "text"),
    [
        (
            {"user": "bob"},
            "spec.resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes",
        ),
        (
            {
                "user": "bob",
                "resourceAttributes": asked(),
                "nonResourceAttributes": {"path": "/", "verb": "get"},
            },
            "spec.nonResourceAttributes",
            "cannot be specified in combination with resourceAttributes",
        ),
        ({"resourceAttributes": asked()}, "spec.user", "at least one of user or group must be specified"),
    ],
)
def test_reviews_that_ask_nothing_or_too_much(authorizer, spec, field, text):
    with pytest.raises(ApiError) as caught:
        reviews.subject_access_review({"spec": spec}, authorizer)
    cause = caught.value.details["causes"][0]
    assert (caught.value.code, cause["field"]) == (422, field)
    assert text in cause["message"]


def test_local_review_stays_in_its_namespace(authorizer):
    obj = {"spec": {"user": "bob", "resourceAttributes": asked()}}
    assert reviews.local_subject_access_review(obj, "x", authorizer)["status"]["allowed"]
    with pytest.raises(ApiError, match="must match namespace: y"):
        reviews.local_subject_access_review(obj, "y", authorizer)


def test_rules_review(authorizer):
    with pytest.raises(ApiError, match="no namespace on request"):
        reviews.self_subject_rules_review({"spec": {}}, BOB, authorizer)
    status = reviews.self_subject_rules_review({"spec": {"namespace": "x"}}, BOB, authorizer)["status"]
    rule = {"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"]}
    assert status == {"resourceRules": [rule], "nonResourceRules": [], "incomplete": False}


def test_token_review_and_who_am_i(facts):
    issuer = TokenIssuer(pki.fixed_key(), facts.lookup, facts.clock, facts.ids)
    who = Authenticator(facts.clock, issuer=issuer, static=read_tokens(["t,alice,1"]))
    status = reviews.token_review({"spec": {"token": "t"}}, who)["status"]
    assert status["authenticated"]
    assert status["user"] == {"username": "alice", "uid": "1", "groups": ["system:authenticated"]}
    status = reviews.token_review({"spec": {"token": "bad"}}, who)["status"]
    assert "authenticated" not in status and status["error"].startswith("[invalid bearer token")
    obj = reviews.self_subject_review({}, User("a", ("g",), "", {"k": ("v",)}))
    assert obj["status"]["userInfo"] == {"username": "a", "groups": ["g"], "extra": {"k": ["v"]}}


# Escalation

ROLES = BUILTIN.get(f"roles.{RBAC}")
BINDINGS = BUILTIN.get(f"rolebindings.{RBAC}")
CLUSTER_ROLES = BUILTIN.get(f"clusterroles.{RBAC}")


def role(*rules, **more):
    return {"metadata": {"name": "more", "namespace": "x"}, "rules": list(rules), **more}


SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}


def test_nobody_gives_away_what_one_lacks(authorizer):
    with pytest.raises(ApiError) as caught:
        check_escalation(authorizer, BOB, ROLES, role(SECRETS), None)
    assert caught.value.message == (
        f'roles.{RBAC} "more" is forbidden: user "bob" (groups=["system:authenticated"]) is attempting to grant RBAC '
        'permissions not currently held:\n{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}'
    )


@pytest.mark.parametrize(
    ("held", "given", "allowed"),
    [
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, SECRETS, True),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}, SECRETS, True),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, SECRETS, False),
        ({**SECRETS, "resourceNames": ["a"]}, SECRETS, False),
        ({**SECRETS, "resourceNames": ["a"]}, {**SECRETS, "resourceNames": ["a"]}, True),
        (SECRETS, {**SECRETS, "resourceNames": ["a", "b"]}, True),
        (
            {"apiGroups": [""], "resources": ["*/scale"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["a/scale"], "verbs": ["get"]},
            True,
        ),
        (SECRETS, {"apiGroups": ["*"], "resources": ["secrets"], "verbs": ["get"]}, False),
        (SECRETS, {"nonResourceURLs": ["/x"], "verbs": ["get"]}, False),
        ({"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["escalate"]}, SECRETS, True),
    ],
)
def test_nobody_gives_away_a_rule_beyond_their_own(facts, authorizer, held, given, allowed):
    may(facts, held, name="held")
    if allowed:
        check_escalation(authorizer, BOB, ROLES, role(given), None)
    else:
        with pytest.raises(ApiError):
            check_escalation(authorizer, BOB, ROLES, role(given), None)


def test_nobody_binds_a_role_beyond_their_own_rights(facts, authorizer):
    facts.make("Role", "big", "x", rules=[SECRETS])
    binding = {"metadata": {"name": "b", "namespace": "x"}, "roleRef": {"kind": "Role", "name": "big"}}
    with pytest.raises(ApiError, match="attempting to grant"):
        check_escalation(authorizer, BOB, BINDINGS, binding, None)
    check_escalation(authorizer, MASTER, BINDINGS, binding, None)
    check_escalation(authorizer, BOB, BINDINGS, binding | {"metadata": {"name": "b", "labels": {}}}, binding)
    may(
        facts,
        {"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["bind"], "resourceNames": ["big"]},
        name="binder",
    )
    check_escalation(authorizer, BOB, BINDINGS, binding, None)
    missing = binding | {"roleRef": {"kind": "Role", "name": "none"}}
    with pytest.raises(ApiError, match="not found"):
        check_escalation(authorizer, BOB, BINDINGS, missing, None)


def test_aggregation_needs_everything(authorizer):
    with pytest.raises(ApiError, match="must have cluster-admin privileges to use an aggregationRule"):
        check_escalation(
            authorizer, BOB, CLUSTER_ROLES, {"metadata": {"name": "a"}, "aggregationRule": {"x": 1}}, None
        )


# Impersonation


def test_one_acts_as_another_with_that_ones_groups(facts, authorizer):
    assert impersonate(BOB, {"accept": "*/*"}, authorizer) is BOB
    headers = {"impersonate-user": "eve", "impersonate-group": "a, b", "impersonate-extra-scope%2fx": "1, 2"}
    eve = User("eve", ("a", "b", "system:authenticated"), "", {"scope/x": ("1", "2")})
    assert impersonate(MASTER, headers, authorizer) == eve
    account = impersonate(MASTER, {"impersonate-user": "system:serviceaccount:x:app"}, authorizer)
    assert account.groups == ("system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated")
    nobody = impersonate(MASTER, {"impersonate-user": "system:anonymous"}, authorizer)
    assert nobody.groups == ("system:unauthenticated",)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (
            {"impersonate-user": "eve"},
            'users "eve" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope',
        ),
        (
            {"impersonate-user": "system:serviceaccount:y:app"},
            'serviceaccounts "app" is forbidden: User "bob" cannot impersonate resource "serviceaccounts" in API group "" '
            'in the namespace "y"',
        ),
    ],
)
def test_impersonation_refused(authorizer, headers, text):
    with pytest.raises(ApiError) as caught:
        impersonate(BOB, headers, authorizer)
    assert caught.value.message == text


def test_a_group_alone_is_an_error(authorizer):
    with pytest.raises(ApiError, match="without impersonating a user"):
        impersonate(MASTER, {"impersonate-group": "a"}, authorizer)
