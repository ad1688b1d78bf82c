"""Security contexts and users."""

from __future__ import annotations

import pytest

from sampan.node.pods import security, users
from sampan.node.pods.problems import ConfigProblem
from sampan.node.runtime import Image


def merge(own=None, shared=None, identity=None, image_user=""):
    pod = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"securityContext": shared or {}, "containers": []},
    }
    container = {"name": "c", "securityContext": own or {}}
    identity = identity or users.Identity(0, 0)
    return security.merge(pod, container, identity, image_user, "/seccomp")


def test_the_container_wins_over_the_pod():
    found = merge({"runAsGroup": 5}, {"runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [9, 8]})
    assert (found.gid, found.groups) == (5, (7, 8, 9))


@pytest.mark.parametrize(
    "own, identity, image_user, text",
    [
        ({"runAsNonRoot": True}, users.Identity(0, 0), "", "image will run as root"),
        (
            {"runAsNonRoot": True, "runAsUser": 0},
            users.Identity(0, 0),
            "",
            "runAsUser breaks non-root policy",
        ),
        ({"runAsNonRoot": True}, users.Identity(33, 33), "www", "image has non-numeric user (www)"),
    ],
)
def test_run_as_non_root(own, identity, image_user, text):
    with pytest.raises(ConfigProblem) as caught:
        merge(own, None, identity, image_user)
    assert text in str(caught.value) and '(pod: "p_ns(u)", container: c)' in str(caught.value)


@pytest.mark.parametrize(
    "wanted, has, lacks",
    [
        ({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, {"NET_BIND_SERVICE"}, {"CHOWN"}),
        ({"drop": ["CHOWN"]}, {"SETUID"}, {"CHOWN"}),
        ({"add": ["SYS_TIME"]}, {"SYS_TIME", "CHOWN"}, {"SYS_ADMIN"}),
        ({"add": ["ALL"], "drop": ["SYS_TIME"]}, {"SYS_ADMIN", "CHOWN"}, {"SYS_TIME"}),
        ({"add": ["CAP_SYS_TIME"]}, {"SYS_TIME"}, set()),
    ],
)
def test_capabilities_are_added_and_dropped(wanted, has, lacks):
    found = set(merge({"capabilities": wanted}).capabilities)
    assert has <= found and not lacks & found


def test_no_wish_leaves_the_default_capabilities():
    assert merge().capabilities is None


@pytest.mark.parametrize(
    "own, expected",
    [
        ({}, "RuntimeDefault"),
        ({"privileged": True}, "Unconfined"),
        ({"seccompProfile": {"type": "Unconfined"}}, "Unconfined"),
        ({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}, "/seccomp/a.json"),
    ],
)
def test_the_nearest_seccomp_profile_counts(own, expected):
    assert merge(own).seccomp == expected


@pytest.mark.parametrize(
    "user, expected",
    [
        ("", users.Identity(0, 0, (), "/root")),
        ("web", users.Identity(33, 33, (50,), "/srv")),
        ("33", users.Identity(33, 33, (50,), "/srv")),
        ("web:staff", users.Identity(33, 50, (), "/srv")),
        ("1234", users.Identity(1234, 0, (), "")),
        ("1234:5", users.Identity(1234, 5, (), "")),
    ],
)
def test_users_of_the_image(tmp_path, user, expected):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:r:/root:/bin/sh\nweb:x:33:33:w:/srv:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nstaff:x:50:web\n")
    assert users.look_up(Image("i", "", "", [str(tmp_path)], {}), user) == expected


def test_an_unknown_user_is_named(tmp_path):
    with pytest.raises(ConfigProblem, match="unable to find user ghost"):
        users.look_up(Image("i", "", "", [str(tmp_path)], {}), "ghost")
