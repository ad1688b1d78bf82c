import io
import json

from sampan.base import logging
from sampan.base.clock import VirtualClock


def test_lines_carry_the_injected_time_and_the_facts():
    out = io.StringIO()
    logging.setup(VirtualClock(), stream=out)
    log = logging.logger("server").bind(node="n1")
    log.info("pod started", pod="default/web", why="it was asked")
    log.debug("not shown")
    assert out.getvalue() == (
        '2026-01-01T00:00:00.000000Z I server: pod started node=n1 pod=default/web why="it was asked"\n'
    )


def test_json_lines_keep_the_trace():
    out = io.StringIO()
    logging.setup(VirtualClock(), stream=out, as_json=True)
    try:
        raise ValueError("no")
    except ValueError as error:
        logging.logger("x").error("failed", exc=error, code=3)
    line = json.loads(out.getvalue())
    assert (line["level"], line["msg"], line["code"]) == ("error", "failed", 3)
    assert "ValueError: no" in line["trace"]
