import itertools
import threading

import pytest

from sampan.node.images.ahead import Ahead


def test_pieces_read_as_one_file_whatever_the_sizes():
    whole = bytes(range(256)) * 40
    pieces = [whole[:1], whole[1:5000], whole[5000:5007], whole[5007:]]
    file = Ahead(pieces)
    read = [file.read(size) for size in (3, 512, 4990, 1 << 20, 10)]
    assert b"".join(read) == whole and [len(one) for one in read[:3]] == [3, 512, 4990]
    assert file.tell() == len(whole)
    file.close()


def test_seeking_skips_and_stops_at_the_end():
    file = Ahead([b"abc", b"def"])
    assert (file.seek(4), file.read(1), file.seek(100)) == (4, b"e", 6)
    file.close()


def test_what_goes_wrong_with_a_piece_is_raised_where_it_is_missed():
    def pieces():
        yield b"good"
        raise ValueError("corrupt")

    file = Ahead(pieces())
    assert file.read(4) == b"good"
    with pytest.raises(ValueError, match="corrupt"):
        file.read(1)
    file.close()


def test_nobody_is_left_making_pieces_of_a_file_that_is_closed():
    before = threading.active_count()
    file = Ahead(itertools.repeat(b"x"))
    file.read(1)
    file.close()
    assert threading.active_count() == before
