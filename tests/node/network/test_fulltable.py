from sampan.base.clock import VirtualClock
from sampan.node.network.fulltable import FullTableWatch, dropped

HEADER = "entries  found new invalid ignore delete insert insert_failed drop early_drop\n"


def statistics(*drops):
    return HEADER + "".join(f"0000002c 00 00 00 00 00 00 00 {number:08x} 00\n" for number in drops)


def test_drops_are_counted_over_all_processors():
    assert dropped(statistics(0, 0)) == 0
    assert dropped(statistics(16, 3)) == 19
    assert dropped("entries found\n00 00\n") == 0


async def test_a_full_table_is_told_once_a_streak(tmp_path):
    clock, told, file = VirtualClock(), [], tmp_path / "nf_conntrack"
    file.write_text(statistics(5, 0))
    watch = FullTableWatch(clock, told.append, file)
    watch.start()
    await clock.settle()
    for drops, count in ((5, 0), (9, 1), (12, 1), (12, 1), (13, 2)):
        file.write_text(statistics(drops, 0))
        await clock.advance(10)
        assert len(told) == count, drops
    assert "4 new connections dropped" in told[0]
    file.unlink()
    await clock.advance(20)
    await watch.stop()
