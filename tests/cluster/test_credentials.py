"""The names that the API server's certificate is for."""

from __future__ import annotations

from pathlib import Path

from sampan.base import pki
from sampan.cluster import credentials
from sampan.cluster.config import ClusterConfig


def test_pods_may_call_the_server_by_every_name_that_dns_has_for_it(tmp_path: Path) -> None:
    config = ClusterConfig("x", fabric="10.89.7.0/24")
    credentials.ensure(config, tmp_path)
    dns, ips = pki.certificate_names((tmp_path / "apiserver.crt").read_bytes())
    service = "kubernetes.default.svc"
    assert {"kubernetes", "kubernetes.default", service, f"{service}.cluster.local"} <= dns
    assert config.api_service_ip in ips
