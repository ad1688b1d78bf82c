"""Applying is compared with a model as simple as its rules: leaves, each with a value and with those who want it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.apply import apply
from sampan.api.mergepatch import merge_patch
from sampan.api.schema import root
from sampan.api.status import ApiError

NODE = root("", "v1", "ConfigMap")
MANAGERS = ("one", "two", "three")
DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(("1", "2", "3")), max_size=4)
STEPS = st.lists(st.tuples(st.sampled_from(MANAGERS), DATA, st.booleans()), min_size=1, max_size=12)


class Model:
    """What KEP-555 says of a map of text."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.wants: dict[str, set[str]] = {name: set() for name in MANAGERS}

    def apply(self, manager: str, data: dict[str, str], force: bool) -> bool:
        """False for a conflict, which changes nothing."""
        changed = {k for k, v in data.items() if self.values.get(k) != v}
        others = {k for name in MANAGERS if name != manager for k in self.wants[name]}
        if changed & others and not force:
            return False
        for name in MANAGERS:
            if name != manager:
                self.wants[name] -= changed
        dropped = self.wants[manager] - data.keys() - others
        self.wants[manager] = set(data)
        self.values = {k: v for k, v in {**self.values, **data}.items() if k not in dropped}
        return True


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_apply_is_what_the_model_says(steps: list[tuple[str, dict[str, str], bool]]) -> None:
    model, live = Model(), None
    for manager, data, force in steps:
        wish: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        if data:
            wish["data"] = dict(data)
        expected = model.apply(manager, data, force)
        try:
            live = apply(
                live,
                wish,
                NODE,
                manager=manager,
                force=force,
                subresource="",
                now="2026-01-01T00:00:00Z",
                api_version="v1",
            )
        except ApiError as error:
            assert error.code == 409 and not expected
            continue
        assert expected and (live.get("data") or {}) == model.values


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(("", "x")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


def rfc7396(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = rfc7396(result.get(key), value)
    return result


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
)
def test_a_merge_patch_is_that_of_the_rfc(target: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(target, patch) == rfc7396(target, patch)
