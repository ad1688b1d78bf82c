"""The server keeps the truth: HTTP, identity, admission, storage, watches."""
