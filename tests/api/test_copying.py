from hypothesis import given
from hypothesis import strategies as st

from sampan.api.copying import copied

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def containers(value):
    if isinstance(value, dict | list):
        yield id(value)
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


@given(JSON)
def test_a_copy_is_equal_and_shares_nothing_that_can_change(value):
    copy = copied(value)
    assert copy == value
    assert not set(containers(copy)) & set(containers(value))
