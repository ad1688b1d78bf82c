from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.node.native.logs import LogWriter, timestamp


def test_a_time_is_written_to_the_nanosecond():
    assert timestamp(1_700_000_000_000_000_042) == b"2023-11-14T22:13:20.000000042Z"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=40_000) | st.just(b"\n") | st.just(b"x" * 16384), max_size=6))
def test_every_byte_comes_back_in_order(chunks):
    log = LogWriter("")
    collected = []
    log._append = collected.append
    for chunk in chunks:
        log.write(b"stdout", chunk)
    log.finish(b"stdout")
    rebuilt = b""
    for line in b"".join(collected).split(b"\n")[:-1]:
        _, stream, tag, text = line.split(b" ", 3)
        assert stream == b"stdout" and len(text) <= 16384
        rebuilt += text + (b"\n" if tag == b"F" else b"")
    assert rebuilt == b"".join(chunks)


def test_a_full_disk_loses_lines_only():
    log = LogWriter("/dev/full")
    log.write(b"stdout", b"lost\n")
    log.finish(b"stdout")
