"""The ConfigMap kube-dns: what it may say, and that what is wrong in it is named."""

from __future__ import annotations

import json

import pytest

from sampan.node.dns.settings import FollowedSettings, Settings, read


def configmap(**data: object) -> dict:
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in data.items()}
    return {"kind": "ConfigMap", "metadata": {"name": "kube-dns", "namespace": "kube-system"}, "data": text}


GOOD = [
    (None, Settings()),
    (configmap(), Settings()),
    (
        configmap(stubDomains={"acme.example": ["192.0.2.1"]}),
        Settings({"acme.example": (("192.0.2.1", 53),)}),
    ),
    (
        configmap(stubDomains={"a.b": ["192.0.2.1:5353", "2001:db8::1", "[2001:db8::2]:54"]}),
        Settings({"a.b": (("192.0.2.1", 5353), ("2001:db8::1", 53), ("2001:db8::2", 54))}),
    ),
    (configmap(upstreamNameservers=["192.0.2.9"]), Settings(upstream=(("192.0.2.9", 53),))),
]


@pytest.mark.parametrize("given, expected", GOOD)
def test_what_is_said(given, expected):
    assert read(given) == expected


BAD = [
    (configmap(stubDomains="{"), "stubDomains is not JSON"),
    (configmap(stubDomains=["a"]), "stubDomains must be a JSON object"),
    (configmap(stubDomains={"a_b!": ["192.0.2.1"]}), "'a_b!' is not a domain"),
    (configmap(stubDomains={"a.b": "192.0.2.1"}), "stubDomains[a.b] must be a list"),
    (configmap(stubDomains={"a.b": ["resolver"]}), "'resolver' is not the address of a resolver"),
    (configmap(upstreamNameservers=["192.0.2.1:0"]), "'192.0.2.1:0' is not the address"),
    (configmap(upstreamNameservers=["192.0.2.1"] * 4), "at most 3, not 4"),
]


@pytest.mark.parametrize("given, text", BAD)
def test_what_is_wrong(given, text):
    with pytest.raises(ValueError, match=text.replace("[", r"\[").replace("{", r"\{")):
        read(given)


def test_wrong_settings_leave_the_last_good_ones():
    class View:
        def subscribe(self, listener):
            self.tell = listener

        def get(self, resource, name, namespace):
            return None

    view, applied, problems = View(), [], []
    followed = FollowedSettings(view, applied.append, lambda obj, text: problems.append(text))
    followed.start()
    good = configmap(upstreamNameservers=["192.0.2.9"])
    for now in (good, configmap(upstreamNameservers="?"), None):
        view.tell("configmaps", None if now else good, now)
    assert applied == [Settings(), Settings(upstream=(("192.0.2.9", 53),)), Settings()]
    assert len(problems) == 1 and "not JSON" in problems[0]
