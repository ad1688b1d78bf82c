"""Histograms count what is at most each bound."""

from __future__ import annotations

from sampan.node.histogram import Histogram


def test_buckets_add_up():
    histogram = Histogram()
    for seconds in (0.001, 0.005, 0.3, 60):
        histogram.observe(seconds)
    lines = list(histogram.lines("x_seconds", 'a="b"'))
    assert lines[0] == 'x_seconds_bucket{a="b",le="0.005"} 2'
    assert 'x_seconds_bucket{a="b",le="0.25"} 2' in lines and 'x_seconds_bucket{a="b",le="0.5"} 3' in lines
    assert lines[-3:] == [
        'x_seconds_bucket{a="b",le="+Inf"} 4',
        'x_seconds_sum{a="b"} 60.306',
        'x_seconds_count{a="b"} 4',
    ]
