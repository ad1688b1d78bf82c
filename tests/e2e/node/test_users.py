"""hostUsers: false through the API: the pod's root is nobody on the node; volumes, exec and the network work as ever."""

from __future__ import annotations

from harness import Kubectl, eventually, pod, server, shell


def test_a_pod_with_users_of_its_own(kubectl: Kubectl, busybox: str) -> None:
    kubectl("create configmap words --from-literal=word=hello")
    mounts = [{"name": "words", "mountPath": "/words"}, {"name": "disk", "mountPath": "/disk"}]
    script = "id -u; cat /words/word; echo; echo x > /disk/file; busybox stat -c %u /disk/file; cat /proc/self/uid_map"
    volumes = [{"name": "words", "configMap": {"name": "words"}}, {"name": "disk", "emptyDir": {}}]
    main = shell(f"{script}; sleep infinity", volumeMounts=mounts, image=busybox)
    spec = {"hostUsers": False, "containers": [main], "volumes": volumes}
    spec["automountServiceAccountToken"] = (
        False  # a token lies in a tmpfs, which has other users since Linux 6.3
    )
    kubectl.run_pod("own", spec)
    lines = eventually(lambda: len(said := kubectl("logs own").split("\n")) > 4 and said, "all it says")
    assert lines[:3] == ["0", "hello", "0"]
    inside, outside, count = lines[3].split()
    assert (inside, count) == ("0", "65536") and int(outside) >= 65536
    assert kubectl("exec own -- id -u").strip() == "0"


def test_its_network_is_as_any_pods(kubectl: Kubectl) -> None:
    kubectl.apply(
        pod("web", {"hostUsers": False, "containers": [server(answer="users")]}, labels={"app": "web"})
    )
    kubectl.wait("pod/web")
    kubectl("expose pod web --port=80 --target-port=8080")
    kubectl.run_pod("client")
    fetch = "import urllib.request as u; print(u.urlopen('http://web', timeout=5).read().decode())"
    eventually(lambda: "users" in kubectl(f'exec client -- python3 -c "{fetch}"'), "the Service answers")
