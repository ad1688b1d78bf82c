"""Files of configMap, secret, downwardAPI and projected volumes."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from sampan.node.pods.problems import VolumeError
from sampan.node.volumes import atomic, mounting, payload, podfiles, trust
from sampan.node.volumes.atomic import File

POD = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": 'x"y\n'}},
    "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
}
FOUND = {
    ("configmaps", "cm"): {
        "data": {"a": "1", "b": "2"},
        "binaryData": {"z": base64.b64encode(b"\0").decode()},
    },
    ("secrets", "sec"): {"data": {"s": base64.b64encode(b"x").decode()}},
    ("configmaps", "none"): None,
}


def build(volume, issued=None):
    return payload.build(POD, volume, FOUND, issued or {}, {"cpu": "4"})


@pytest.mark.parametrize(
    "volume, expected",
    [
        (
            {"configMap": {"name": "cm"}},
            {"a": File(b"1", 0o644), "b": File(b"2", 0o644), "z": File(b"\0", 0o644)},
        ),
        (
            {"configMap": {"name": "cm", "defaultMode": 0o600, "items": [{"key": "a", "path": "d/x"}]}},
            {"d/x": File(b"1", 0o600)},
        ),
        (
            {"secret": {"secretName": "sec", "items": [{"key": "s", "path": "s", "mode": 0o400}]}},
            {"s": File(b"x", 0o400)},
        ),
        ({"configMap": {"name": "none", "optional": True}}, {}),
        (
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"l": File(b'a="x\\"y\\n"\nb="2"', 0o644)},
        ),
        (
            {
                "downwardAPI": {
                    "items": [
                        {"path": "c", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}
                    ]
                }
            },
            {"c": File(b"2", 0o644)},
        ),
        (
            {
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
                    ],
                }
            },
            {"token": File(b"T", 0o440), "ca.crt": File(b"1", 0o440)},
        ),
    ],
)
def test_a_volume_holds_the_files_it_asks_for(volume, expected):
    assert build(volume, {"token": "T"}) == expected


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ({}, File(b"T", 0o644)),
        ({"runAsUser": 1000}, File(b"T", 0o600, 1000)),
        ({"fsGroup": 10000}, File(b"T", 0o600)),
        ({"runAsUser": 1000, "fsGroup": 10000}, File(b"T", 0o600, 1000)),
    ],
)
def test_a_token_is_for_its_user_and_the_group_of_the_volume(security, expected):
    pod = {**POD, "spec": {**POD["spec"], "securityContext": security}}
    volume = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    assert payload.build(pod, volume, FOUND, {"token": "T"}, {}) == {"token": expected}


def test_a_certificate_is_one_file_or_two_for_its_user():
    first = {"podCertificate": {"credentialBundlePath": "both.pem"}}
    second = {"podCertificate": {"keyPath": "k/key.pem", "certificateChainPath": "k/chain.pem"}}
    volume = {"projected": {"defaultMode": 0o440, "sources": [first, {"downwardAPI": {}}, second]}}
    held = {0: payload.Credential(b"K0", b"C0"), 2: payload.Credential(b"K2", b"C2")}
    assert [index for index, _ in payload.certificates(volume)] == list(held)
    files = payload.build(POD, volume, FOUND, {}, {}, credentials=held)
    contents = {"both.pem": b"K0C0", "k/key.pem": b"K2", "k/chain.pem": b"C2"}
    assert files == {path: File(data, 0o440) for path, data in contents.items()}
    grouped = {**POD, "spec": {**POD["spec"], "securityContext": {"fsGroup": 1, "runAsUser": 7}}}
    files = payload.build(grouped, volume, FOUND, {}, {}, credentials=held)
    assert {(file.mode, file.uid) for file in files.values()} == {(0o600, 7)}


@pytest.mark.parametrize(
    "volume, message",
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "gone"}}, 'secret "gone" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "q", "path": "q"}]}},
            "configmap references non-existent config key: q",
        ),
    ],
)
def test_what_is_missing_is_named(volume, message):
    with pytest.raises(VolumeError, match=message):
        build(volume)


def shown(directory):
    names = [n for n in os.listdir(directory) if not n.startswith("..")]
    return {n: Path(f"{directory}/{n}").read_text() for n in names if os.path.isfile(f"{directory}/{n}")}


def test_an_update_changes_all_files_at_once(tmp_path):
    directory = str(tmp_path / "v")
    assert atomic.write(directory, {"a": File(b"1", 0o644), "d/x": File(b"2", 0o600)}, "t1")
    assert shown(directory) == {"a": "1"} and Path(f"{directory}/d/x").read_text() == "2"
    held = os.open(f"{directory}/..data", os.O_PATH)
    assert not atomic.write(directory, {"a": File(b"1", 0o644), "d/x": File(b"2", 0o600)}, "t2")
    assert atomic.write(directory, {"a": File(b"3", 0o644), "b": File(b"4", 0o644)}, "t3")
    assert shown(directory) == {"a": "3", "b": "4"}
    assert not os.path.lexists(f"{directory}/d")
    assert sorted(n for n in os.listdir(directory) if n.startswith("..")) == ["..data", "..t3"]
    os.close(held)


@pytest.mark.parametrize("path", ["out", "out/x", "up", "abs/passwd"])
def test_a_sub_path_cannot_leave_its_volume(tmp_path, path):
    root = tmp_path / "v"
    root.mkdir()
    (tmp_path / "secret").mkdir()
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("../secret")
    (root / "abs").symlink_to("/etc")
    with pytest.raises(OSError):
        mounting.hold(str(root), path, str(tmp_path / "place"))
    assert os.listdir(tmp_path / "secret") == []


def test_resolv_conf_follows_the_policy():
    node = "search example.org\nnameserver 9.9.9.9\noptions timeout:2\n"

    def lines(**spec):
        return podfiles.resolv_conf({**POD, "spec": spec}, ["10.96.0.10"], "cluster.local", node).splitlines()

    assert lines() == [
        "search ns.svc.cluster.local svc.cluster.local cluster.local example.org",
        "nameserver 10.96.0.10",
        "options ndots:5",
    ]
    default = ["search example.org", "nameserver 9.9.9.9", "options timeout:2"]
    assert lines(dnsPolicy="Default") == default == lines(dnsPolicy="ClusterFirst", hostNetwork=True)
    own = {"nameservers": ["1.1.1.1"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}]}
    assert lines(dnsPolicy="None", dnsConfig=own) == ["search x.y", "nameserver 1.1.1.1", "options ndots:2"]
    assert lines(dnsConfig=own)[-1] == "options ndots:2"


def test_hosts_has_the_pod_and_its_aliases():
    spec = {"subdomain": "db", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}
    text = podfiles.hosts({**POD, "spec": spec}, ["10.0.0.1"], "cluster.local")
    assert "10.0.0.1\tp.db.ns.svc.cluster.local\tp\n" in text
    assert text.endswith("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")


def test_an_overridden_hostname_has_no_domain():
    spec = {"hostname": "h", "subdomain": "db", "hostnameOverride": "o.example.com"}
    text = podfiles.hosts({**POD, "spec": spec}, ["10.0.0.1"], "cluster.local")
    assert text.endswith("\n10.0.0.1\to.example.com\n")


def pem(text):
    body = base64.b64encode(text.encode()).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


BUNDLES = [
    {
        "metadata": {"name": "a", "labels": {"live": "yes"}},
        "spec": {"signerName": "s/1", "trustBundle": pem("a")},
    },
    {"metadata": {"name": "b"}, "spec": {"signerName": "s/1", "trustBundle": pem("b") + "\n" + pem("a")}},
    {"metadata": {"name": "c"}, "spec": {"trustBundle": pem("c" * 99)}},
]


@pytest.mark.parametrize(
    "source, certificates",
    [
        ({"name": "a"}, ["a"]),
        ({"name": "b"}, ["a", "b"]),
        ({"name": "none", "optional": True}, []),
        ({"signerName": "s/1", "labelSelector": {}}, ["a", "b"]),
        ({"signerName": "s/1", "labelSelector": {"matchLabels": {"live": "yes"}}}, ["a"]),
        ({"signerName": "s/1", "optional": True}, []),
        ({"signerName": "s/2", "labelSelector": {}, "optional": True}, []),
    ],
)
def test_trusted_certificates(source, certificates):
    assert trust.anchors(source, BUNDLES).decode() == "".join(map(pem, certificates))


def test_a_trust_bundle_is_a_file_of_a_projected_volume():
    source = {"clusterTrustBundle": {"name": "c", "path": "ca.pem"}}
    files = payload.build(POD, {"projected": {"sources": [source]}}, FOUND, {}, {}, BUNDLES)
    lines = files["ca.pem"].data.decode().splitlines()
    assert [len(line) for line in lines[1:-1]] == [64, 64, 4] and files["ca.pem"].mode == 0o644


@pytest.mark.parametrize(
    "source, why",
    [
        ({"name": "x"}, 'clustertrustbundle "x" not found'),
        (
            {"signerName": "s/1"},
            "combination of signerName and labelSelector matched zero ClusterTrustBundles",
        ),
    ],
)
def test_a_trust_bundle_that_is_not_there(source, why):
    with pytest.raises(VolumeError, match=why):
        trust.anchors(source, BUNDLES)
