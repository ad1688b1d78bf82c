"""The files kubelet gives every container: /etc/hosts, /etc/hostname, /etc/resolv.conf. Pure text.

Rules: "DNS for Services and Pods", "Adding entries to Pod /etc/hosts with HostAliases".
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.base.objects import Object
from sampan.node.pods.spec import full_name, hostname

_LOCAL = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
_MAX_NAMESERVERS, _MAX_SEARCH = 3, 32


def hosts(pod: Object, ips: Sequence[str], domain: str, node_hosts: str = "") -> str:
    """/etc/hosts. `node_hosts` is the node's own file, which pods in its network start from."""
    if pod["spec"].get("hostNetwork"):
        text = "# Kubernetes-managed hosts file (host network).\n" + node_hosts
    else:
        names = [n for n in (full_name(pod, domain), hostname(pod)) if n]
        text = _LOCAL + "".join(f"{ip}\t{chr(9).join(names)}\n" for ip in ips)
    aliases = pod["spec"].get("hostAliases") or ()
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{a['ip']}\t{chr(9).join(a.get('hostnames') or ())}\n" for a in aliases)
    return text


def resolv_conf(pod: Object, cluster_dns: Sequence[str], domain: str, node_text: str) -> str:
    """/etc/resolv.conf for the pod's dnsPolicy and dnsConfig. `node_text` is the node's own."""
    policy = pod["spec"].get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and pod["spec"].get("hostNetwork"):
        policy = "Default"
    servers, search, options = parse(node_text)
    if policy == "None":
        servers, search, options = [], [], []
    elif policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        namespace = pod["metadata"]["namespace"]
        search = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *search]
        servers, options = list(cluster_dns), ["ndots:5"]
    extra = pod["spec"].get("dnsConfig") or {}
    servers = _unique([*servers, *(extra.get("nameservers") or ())])[:_MAX_NAMESERVERS]
    search = _unique([*search, *(extra.get("searches") or ())])[:_MAX_SEARCH]
    for option in extra.get("options") or ():
        options = [o for o in options if o.partition(":")[0] != option["name"]]
        options.append(f"{option['name']}:{option['value']}" if option.get("value") else option["name"])
    lines = []
    if search:
        lines.append("search " + " ".join(search))
    lines += [f"nameserver {server}" for server in servers]
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def parse(text: str) -> tuple[list[str], list[str], list[str]]:
    """(nameservers, search, options) of a resolv.conf (resolv.conf(5))."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = [w for w in words[1:] if w != "."]
        elif words[0] == "options":
            options = words[1:]
    return servers, search, options


def _unique(items: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(items))
