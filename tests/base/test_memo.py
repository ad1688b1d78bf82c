"""What is remembered, for how long, and that it is bounded."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.base.memo import Memo


def test_answers_are_told_apart_by_kind_and_text():
    memo = Memo()
    memo.put("a", b"x", 1)
    memo.put("b", b"x", 2)
    assert (memo.get("a", b"x"), memo.get("b", b"x"), memo.get("a", b"y")) == (1, 2, None)


def test_the_first_goes_first():
    memo = Memo(32)
    for number in range(40):
        memo.put(None, b"%d" % (number % 10), number % 10)
    assert [memo.get(None, b"%d" % n) for n in range(10)] == list(range(10))
    for number in range(10, 26):
        memo.put(None, b"%d" % number, number)
    assert memo.get(None, b"9") is None
    assert memo.get(None, b"25") == 25


def test_long_keys_are_not_kept():
    memo = Memo(64)
    memo.put(None, b"12345", 1)
    assert memo.get(None, b"12345") is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=6))), st.integers(16, 128))
def test_is_bounded_and_never_wrong(asked, size):
    memo = Memo(size)
    for kind, text in asked:
        known = memo.get(kind, text)
        assert known is None or known == (kind, len(text))
        memo.put(kind, text, (kind, len(text)))
    assert sum(len(text) for _, text in memo._known) <= size
