import pytest

from sampan.api import duration


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("300ms", 300_000_000),
        ("1h30m", 5_400_000_000_000),
        ("-1.5s", -1_500_000_000),
        ("+.5s", 500_000_000),
        ("1.s2us3µs", 1_000_005_000),
        ("2540400h10m10s", 9_145_440_610_000_000_000),
    ],
)
def test_what_go_reads(text, nanoseconds):
    assert duration.nanoseconds(text) == nanoseconds
    assert duration.seconds(text) == nanoseconds / 1e9


@pytest.mark.parametrize(
    "text", ["", "-", "5", "s", ".s", "1 h", "1d", "1h-1m", "1m x", "9999999h", "1s" * 101]
)
def test_what_go_refuses(text):
    with pytest.raises(ValueError) as refused:
        duration.seconds(text)
    assert str(refused.value) == f'time: invalid duration "{text}"'


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (10, "10s"), (80.9, "1m20s"), (300, "5m0s")])
def test_what_go_prints(seconds, text):
    assert duration.of_seconds(seconds) == text
