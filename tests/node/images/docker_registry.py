"""Debian's docker-registry on this machine, for tests: with TLS of a CA of our own, with a password, or bare.

`push` speaks the distribution protocol itself, so that no Docker is needed.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import http.client
import io
import ipaddress
import json
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sampan.base.tls import client_context

USER, PASSWORD = "sailor", "swordfish"
_BCRYPT = "$2b$04$sampansampansampansameVj8BKZl8aXmsotRe/LPUTn6OhEyJdCS"


class DockerRegistry:
    """A context manager. `host` is "ADDRESS:PORT", `ca` the file of its CA (with tls)."""

    def __init__(
        self, directory: Path, address: str = "127.0.0.1", *, tls: bool = False, password: bool = False
    ) -> None:
        program = shutil.which("docker-registry")
        assert program, "docker-registry is not installed (scripts/test does it)"
        with socket.create_server((address, 0)) as free:
            self.port = free.getsockname()[1]
        self.host, self.tls, self.password = f"{address}:{self.port}", tls, password
        self.ca = directory / "ca.pem"
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": {"addr": self.host},
        }
        if tls:
            certificate(directory, address)
            config["http"]["tls"] = {
                "certificate": str(directory / "cert.pem"),
                "key": str(directory / "key.pem"),
            }
        if password:
            (directory / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        (directory / "config.yml").write_text(json.dumps(config))
        self._log = (directory / "log").open("wb")
        self._command = [program, "serve", str(directory / "config.yml")]

    def __enter__(self) -> DockerRegistry:
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while True:
            try:
                self.call("GET", "/v2/").read()
                return self
            except OSError:
                assert time.monotonic() < end and self._process.poll() is None, (
                    "docker-registry does not start"
                )
                time.sleep(0.02)

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    @property
    def login(self) -> dict[str, str]:
        return {"registry": self.host, "username": USER, "password": PASSWORD}

    def call(
        self, method: str, path: str, body: bytes = b"", kind: str = "", accept: str = "*/*"
    ) -> http.client.HTTPResponse:
        address, _, port = self.host.rpartition(":")
        if self.tls:
            context = client_context(file=str(self.ca))
            connection = http.client.HTTPSConnection(address, int(port), context=context, timeout=60)
        else:
            connection = http.client.HTTPConnection(address, int(port), timeout=60)
        headers = {"Accept": accept} | ({"Content-Type": kind} if kind else {})
        if self.password:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        connection.request(method, path, body=body, headers=headers)
        return connection.getresponse()

    def push(self, name: str, tag: str, layers: list[bytes], **config: object) -> str:
        """Tars as an image; returns the digest of its manifest."""
        packed = [gzip.compress(layer, 1) for layer in layers]
        diff_ids = [_digest(layer) for layer in layers]
        raw = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        ).encode()
        for blob in (*packed, raw):
            self._blob(name, blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", raw),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", one) for one in packed],
        }
        body = json.dumps(manifest).encode()
        response = self.call("PUT", f"/v2/{name}/manifests/{tag}", body, manifest["mediaType"])
        assert response.status == 201, response.read()
        return _digest(body)

    def _blob(self, name: str, blob: bytes) -> None:
        response = self.call("POST", f"/v2/{name}/blobs/uploads/")
        response.read()
        where = response.headers["Location"]
        where = where[where.index("/v2/") :]
        separator = "&" if "?" in where else "?"
        done = self.call("PUT", f"{where}{separator}digest={_digest(blob)}", blob, "application/octet-stream")
        assert done.status == 201, done.read()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def tar(files: dict[str, bytes], mode: int = 0o755) -> bytes:
    """A layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            target.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def certificate(directory: Path, address: str) -> None:
    """A CA and a certificate for `address`, as PEM files."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def signed(name: str, public: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")]),
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(hours=1),
            not_valid_after=now + datetime.timedelta(hours=1),
        ).add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if not authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(authority_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(signed("test ca", authority_key.public_key(), True).public_bytes(pem))
    (directory / "cert.pem").write_bytes(signed("registry", key.public_key(), False).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(private)
