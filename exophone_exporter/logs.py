"""Structured lines on stderr, logfmt or JSON, that never hold credentials and never block.

Fields go in as `extra=fields(account=..., reason=...)`. Times are RFC 3339 in UTC. One thread
writes the lines: a reader of stderr that is slow or has stopped delays nobody who logs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Final, Literal

LogFormat = Literal["logfmt", "json"]
LEVELS: Final = ("debug", "info", "warn", "error")

_WAITING_LINES_MAX: Final = 1000
_FLUSH_SECONDS: Final = 0.5

_LETTER: Final = r"[A-Za-z0-9+/=._~-]"
# Without the header's name only what looks like Base64, or "Basic authentication" would be masked.
_LIKE_BASE64: Final = rf"(?={_LETTER}*(?:[0-9=]|[a-z][A-Z]{_LETTER}*[a-z][A-Z]))"
_CREDENTIALS: Final = (
    (re.compile(rf"(?i)\b(authorization\W{{1,12}}\w+)\s+{_LETTER}+"), r"\1 <secret>"),
    (re.compile(rf"\b((?i:basic|bearer))\s+{_LIKE_BASE64}{_LETTER}{{8,}}"), r"\1 <secret>"),
    (re.compile(r"://[^/\s]+@"), "://<secret>@"),
)
_BARE: Final = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
# What JSON allows in a string and a terminal, or a reader of lines, takes for more than a letter.
_UNFIT: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def fields(**values: object) -> dict[str, dict[str, object]]:
    """The `extra` of a log call: named values that follow the message."""
    return {"fields": values}


def redact(text: str) -> str:
    """`text` without credentials in an Authorization header or in a URL.

    Secrets are kept out of messages at their source; this is the second net.
    """
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def configure(level: str, log_format: LogFormat) -> None:
    """Send every logger's lines to stderr; level is one of LEVELS."""
    root = logging.getLogger()
    for former in _our_handlers():
        former.close()
    root.handlers[:] = [_StderrHandler(_Formatter(log_format))]
    root.setLevel(level.upper())
    # Our own lines report each request. urllib3's are about its pool, and about a header that it
    # cannot read: at every poll, with a traceback and what the server sent.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    for name in ("uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def say(message: str, *, prefixed: bool = True) -> None:
    """A line on stderr for the person at the terminal, with the name of the program."""
    for handler in _our_handlers():
        handler.flush()  # or the line would come before lines that were logged earlier
    with contextlib.suppress(OSError):  # nobody is there to hear it
        sys.stderr.write(f"exophone-exporter: {message}\n" if prefixed else f"{message}\n")


def lines_dropped() -> int:
    """How many lines were dropped because too many were waiting for stderr."""
    return sum(handler.dropped for handler in _our_handlers())


def _our_handlers() -> list[_StderrHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, _StderrHandler)]


class _StderrHandler(logging.Handler):
    """Lines for stderr, which one thread writes; a closed or full one loses them.

    While too many are waiting, more are dropped and counted. The first line after them says so.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.formatter: logging.Formatter = formatter
        self.dropped = 0
        self._reported = 0
        # The queue that may be interrupted by its own use in a signal or the garbage collector.
        self._waiting: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        with contextlib.suppress(RuntimeError):  # no thread is left: what needs one says so itself
            threading.Thread(target=self._write_all, name="logs", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record; one that cannot be formatted is lost."""
        if self._waiting.qsize() >= _WAITING_LINES_MAX:
            self.dropped += 1
            return
        with contextlib.suppress(Exception):
            if (lines := self.dropped - self._reported) > 0:
                self._waiting.put(self.format(_dropped_record(lines)))
                self._reported += lines
            self._waiting.put(self.format(record))

    def flush(self) -> None:
        """Wait until the lines so far are written, but only for a moment: nobody may read them."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(_FLUSH_SECONDS)

    def close(self) -> None:
        """End the thread once it has written what waits."""
        super().close()
        self._waiting.put(None)

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            # Not through sys.stderr: its lock, held here, would abort the end of the process.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                rest = f"{line}\n".encode()
                while rest:
                    rest = rest[os.write(sys.stderr.fileno(), rest) :]


def _dropped_record(lines: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": __name__,
            "levelname": "WARNING",
            "msg": "log lines were dropped: stderr is not read fast enough",
            **fields(lines=lines),
        }
    )


class _Formatter(logging.Formatter):
    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._line = _quoted if log_format == "json" else _logfmt_line

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": {"WARNING": "warn", "CRITICAL": "error"}.get(
                record.levelname, record.levelname.lower()
            ),
            "logger": record.name.removeprefix("exophone_exporter."),
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return redact(self._line(values))


def _logfmt_line(values: dict[str, object]) -> str:
    return " ".join(f"{name}={_logfmt_value(value)}" for name, value in values.items())


def _logfmt_value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(value: object) -> str:
    """JSON on one line, readable in every script."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return _UNFIT.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
