"""One line an event, for people or for machines, with the time taken from the injected clock.

Call `setup` once at the composition root; everybody else calls `logger(name)` and passes facts as keywords:
`log.info("pod started", pod="default/web", ms=12)`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import orjson

from sampan.base.clock import Clock, rfc3339_micro

_ROOT = "sampan"


class Logger:
    """A named source of lines. Keywords become `key=value`, or members of the JSON object."""

    __slots__ = ("_facts", "_logger")

    def __init__(self, logger: logging.Logger, facts: dict[str, Any] | None = None) -> None:
        self._logger = logger
        self._facts = facts or {}

    def bind(self, **facts: Any) -> Logger:
        """The same source; every line carries these facts as well."""
        return Logger(self._logger, self._facts | facts)

    def debug(self, message: str, **facts: Any) -> None:
        self._log(logging.DEBUG, message, facts)

    def info(self, message: str, **facts: Any) -> None:
        self._log(logging.INFO, message, facts)

    def warning(self, message: str, **facts: Any) -> None:
        self._log(logging.WARNING, message, facts)

    def error(self, message: str, *, exc: BaseException | None = None, **facts: Any) -> None:
        self._log(logging.ERROR, message, facts, exc)

    def _log(self, level: int, message: str, facts: dict[str, Any], exc: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            info = (type(exc), exc, exc.__traceback__) if exc else None
            self._logger.log(level, message, extra={"facts": self._facts | facts}, exc_info=info)


def logger(name: str) -> Logger:
    """The logger `sampan.NAME`."""
    return Logger(logging.getLogger(f"{_ROOT}.{name}"))


class _Formatter(logging.Formatter):
    def __init__(self, clock: Clock, as_json: bool) -> None:
        super().__init__()
        self._clock = clock
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        source = record.name.removeprefix(f"{_ROOT}.")
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        time = rfc3339_micro(self._clock.now())
        if self._as_json:
            line = {
                "time": time,
                "level": record.levelname.lower(),
                "source": source,
                "msg": record.getMessage(),
            }
            if trace:
                line["trace"] = trace
            return orjson.dumps(line | facts, default=str).decode()
        told = "".join(f" {key}={_plain(value)}" for key, value in facts.items())
        return f"{time} {record.levelname[0]} {source}: {record.getMessage()}{told}" + (
            f"\n{trace}" if trace else ""
        )


def _plain(value: Any) -> str:
    text = str(value)
    return orjson.dumps(text).decode() if not text or any(c in ' "=\n' for c in text) else text


def setup(clock: Clock, *, level: str = "info", as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send all of sampan's lines to `stream` (standard error). Calling it again replaces the former setup."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(clock, as_json))
    root = logging.getLogger(_ROOT)
    root.handlers = [handler]
    root.setLevel(level.upper())
    root.propagate = False
