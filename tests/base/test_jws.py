"""Signatures with bootstrap tokens are those other programs compute."""

from __future__ import annotations

from sampan.base import jws

TEXT = "Hello from the other side. I must have called a thousand times."
SIGNATURE = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"


def test_a_signature_that_kubernetes_makes() -> None:
    assert jws.sign(TEXT, "joshua", "my voice is my passcode") == SIGNATURE


def test_what_is_valid() -> None:
    assert jws.valid(SIGNATURE, TEXT, "joshua", "my voice is my passcode")
    assert not jws.valid(SIGNATURE, TEXT + ".", "joshua", "my voice is my passcode")
    assert not jws.valid(SIGNATURE, TEXT, "joshua", "another secret")
    assert not jws.valid("\u00e4", TEXT, "joshua", "my voice is my passcode")
