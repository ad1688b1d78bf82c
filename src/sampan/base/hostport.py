"""HOST:PORT as it stands in URLs and in errors of the network (RFC 3986, 3.2.2: IPv6 addresses in brackets)."""


def join(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
