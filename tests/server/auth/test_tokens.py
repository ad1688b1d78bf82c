import base64
import hashlib

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import rfc3339
from sampan.client.messages import Request, User
from sampan.server.auth.authenticate import ANONYMOUS, Authenticator, read_tokens
from sampan.server.auth.tokens import DEFAULT_ISSUER, Refused, TokenIssuer


@pytest.fixture
def issuer(facts):
    return TokenIssuer(pki.fixed_key(), facts.lookup, facts.clock, facts.ids)


@pytest.fixture
def account(facts):
    return facts.make("ServiceAccount", "app", "x")


@pytest.fixture
def authenticator(facts, issuer):
    static = read_tokens(['t0k,alice,u1,"dev,ops"', "# a comment", "", "t1k,bob,u2"])
    return Authenticator(facts.clock, issuer=issuer, lookup=facts.lookup, static=static)


def request(token="", **more):
    return Request("GET", "/", headers={"authorization": f"Bearer {token}"} if token else {}, **more)


def test_certificate_token_file_and_nobody(authenticator):
    peer = {"cn": "jane", "o": ["dev"], "der": b""}
    assert authenticator.authenticate(request(peer=peer)) == User("jane", ("dev", "system:authenticated"))
    digest = hashlib.sha256(b"certificate").hexdigest()
    user = authenticator.authenticate(request(peer=peer | {"der": b"certificate"}))
    assert user.extra == {"authentication.kubernetes.io/credential-id": (f"X509SHA256={digest}",)}
    alice = User("alice", ("dev", "ops", "system:authenticated"), "u1")
    assert authenticator.authenticate(request("t0k")) == alice
    assert authenticator.authenticate(request("t1k")).groups == ("system:authenticated",)
    assert authenticator.authenticate(request()) == ANONYMOUS
    assert authenticator.authenticate(request(peer={"cn": "", "o": []})) == ANONYMOUS


def test_websocket_protocol_carries_a_token(authenticator):
    token = base64.urlsafe_b64encode(b"t0k").rstrip(b"=").decode()
    headers = {"sec-websocket-protocol": f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{token}"}
    assert authenticator.authenticate(Request("GET", "/", headers=headers)).name == "alice"


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "abcdef.0123456789abcdef", "t0k "[:-2]])
def test_a_bad_token_is_unauthorized(authenticator, token):
    with pytest.raises(ApiError) as caught:
        authenticator.authenticate(request(token))
    assert (caught.value.code, caught.value.reason, caught.value.message) == (
        401,
        "Unauthorized",
        "Unauthorized",
    )


def test_without_anonymous_access_nobody_is_unauthorized(facts):
    with pytest.raises(ApiError):
        Authenticator(facts.clock, anonymous=False).authenticate(request())


def test_a_broken_token_file_names_the_line():
    with pytest.raises(ValueError, match="line 1 .* has 2 columns"):
        read_tokens(["a,b"])


def ask(issuer, **spec):
    return issuer.request({"kind": "TokenRequest", "spec": spec}, "x", "app")


def test_a_service_account_is_a_user_with_its_groups(issuer, account, authenticator):
    answer = ask(issuer)
    assert answer["spec"]["expirationSeconds"] == 3600
    assert answer["status"]["expirationTimestamp"] == "2026-01-01T01:00:00Z"
    user = authenticator.authenticate(request(answer["status"]["token"]))
    assert user.name == "system:serviceaccount:x:app"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated")
    assert user.uid == account["metadata"]["uid"]
    assert user.extra["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


async def test_a_token_ends_with_its_time(facts, issuer, account, authenticator):
    token = ask(issuer, expirationSeconds=600)["status"]["token"]
    authenticator.authenticate(request(token))
    await facts.clock.advance(599)
    authenticator.authenticate(request(token))
    await facts.clock.advance(2)
    with pytest.raises(ApiError):
        authenticator.authenticate(request(token))


async def test_a_token_ends_with_its_account_and_its_pod(facts, issuer, account, authenticator):
    facts.make("Node", "n1")
    pod = facts.make("Pod", "p", "x", spec={"serviceAccountName": "app", "nodeName": "n1"})
    ref = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}
    token = ask(issuer, boundObjectRef=ref)["status"]["token"]
    user = authenticator.authenticate(request(token))
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    assert user.extra["authentication.kubernetes.io/node-name"] == ("n1",)
    facts.remove("Pod", "x/p")
    authenticator.authenticate(request(token))  # remembered for ten seconds
    await facts.clock.advance(11)
    with pytest.raises(ApiError):
        authenticator.authenticate(request(token))
    free = ask(issuer)["status"]["token"]
    facts.make("ServiceAccount", "app", "x")  # made anew under another uid
    with pytest.raises(ApiError):
        authenticator.authenticate(request(free))


def test_a_token_is_good_for_its_audiences_only(issuer, account, authenticator):
    token = ask(issuer, audiences=["vault"])["status"]["token"]
    with pytest.raises(ApiError):
        authenticator.authenticate(request(token))
    assert authenticator.token(token, ["vault", "other"])[1] == ("vault",)
    with pytest.raises(Refused):
        authenticator.token(token, ["other"])


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (
            {"expirationSeconds": 599},
            422,
            'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: '
            "may not specify a duration less than 10 minutes",
        ),
        (
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}},
            404,
            'pods "none" not found',
        ),
        (
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "other"}},
            400,
            'cannot bind token for serviceaccount "app" to pod running with different serviceaccount name.',
        ),
        (
            {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "zz"}},
            409,
            'Operation cannot be fulfilled on Secret "s": the UID in the bound object reference (zz) does not match the '
            "UID in record. The object might have been deleted and then recreated",
        ),
        (
            {"boundObjectRef": {"kind": "Job", "apiVersion": "batch/v1", "name": "s"}},
            400,
            "cannot bind token to object of type batch/v1, Kind=Job",
        ),
    ],
)
def test_token_requests_that_are_refused(facts, issuer, account, spec, code, text):
    facts.make("Pod", "other", "x", spec={"serviceAccountName": "default"})
    facts.make("Secret", "s", "x")
    with pytest.raises(ApiError) as caught:
        ask(issuer, **spec)
    assert (caught.value.code, caught.value.message) == (code, text)


def test_a_missing_account_is_not_found(issuer):
    with pytest.raises(ApiError, match='serviceaccounts "app" not found'):
        ask(issuer)


def test_tokens_of_another_key_or_algorithm_are_refused(issuer, account):
    claims = {
        "iss": DEFAULT_ISSUER,
        "aud": [DEFAULT_ISSUER],
        "exp": 9e9,
        "sub": "system:serviceaccount:x:app",
    }
    other = ec.generate_private_key(ec.SECP256R1())
    kid = issuer.jwks()["keys"][0]["kid"]
    for token in (
        jwt.encode(claims, other, algorithm="ES256", headers={"kid": kid}),
        jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": kid}),
        jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
    ):
        with pytest.raises(Refused):
            issuer.verify(token)


def test_tokens_signed_with_a_former_key_stay_good(facts, issuer, account):
    token = ask(issuer)["status"]["token"]
    renewed = TokenIssuer(pki.new_key(), facts.lookup, facts.clock, facts.ids, old_keys=[pki.fixed_key()])
    assert renewed.verify(token)[0].name == "system:serviceaccount:x:app"
    assert len(renewed.jwks()["keys"]) == 2


def test_the_published_keys_verify_a_token(issuer, account):
    token = ask(issuer, audiences=["vault"])["status"]["token"]
    key = jwt.PyJWKSet.from_dict(issuer.jwks())[jwt.get_unverified_header(token)["kid"]].key
    assert jwt.decode(
        token,
        key,
        ["ES256"],
        audience="vault",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    document = issuer.openid_configuration("https://h:6443")
    assert (document["issuer"], document["jwks_uri"]) == (DEFAULT_ISSUER, "https://h:6443/openid/v1/jwks")


def test_a_legacy_secret_holds_a_lasting_token(facts, issuer, account, authenticator):
    token = issuer.legacy(account, "s")
    data = {"token": base64.b64encode(token.encode()).decode()}
    facts.make("Secret", "s", "x", type="kubernetes.io/service-account-token", data=data)
    assert authenticator.authenticate(request(token)).name == "system:serviceaccount:x:app"


def bootstrap_secret(facts, **changes):
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
    }
    data = {k: base64.b64encode(v.encode()).decode() for k, v in (data | changes).items()}
    facts.make(
        "Secret", "bootstrap-token-abcdef", "kube-system", type="bootstrap.kubernetes.io/token", data=data
    )


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"auth-extra-groups": "system:bootstrappers:workers"}, True),
        ({"auth-extra-groups": "system:masters"}, False),
        ({"token-secret": "another"}, False),
        ({"usage-bootstrap-authentication": "false"}, False),
        ({"expiration": rfc3339(0)}, False),
        ({"expiration": "2030-01-01T00:00:00Z"}, True),
        ({"expiration": "soon"}, False),
    ],
)
def test_bootstrap_tokens(facts, authenticator, changes, good):
    bootstrap_secret(facts, **changes)
    if not good:
        with pytest.raises(ApiError):
            authenticator.authenticate(request("abcdef.0123456789abcdef"))
        return
    user = authenticator.authenticate(request("abcdef.0123456789abcdef"))
    assert user.name == "system:bootstrap:abcdef"
    assert "system:bootstrappers" in user.groups
