"""Structured lines on stderr, logfmt or JSON, that never hold credentials.

Fields go in as `extra=fields(account=..., reason=...)`. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

LogFormat = Literal["logfmt", "json"]
LEVELS: Final = ("debug", "info", "warn", "error")

_CREDENTIALS: Final = (
    (re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{4,}"), r"\1 <secret>"),
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
    handler = _StderrHandler()
    handler.setFormatter(_Formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Our own lines report each request. urllib3's are about its pool, and about a header that it
    # cannot read: at every poll, with a traceback and what the server sent.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    for name in ("uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def say(message: str) -> None:
    """A line on stderr for the person at the terminal, in the place of a log line."""
    with contextlib.suppress(OSError):  # nobody is there to hear it
        sys.stderr.write(f"exophone-exporter: {message}\n")


class _StderrHandler(logging.StreamHandler[Any]):
    """stderr as it is now; a closed or full one loses the line and never the process."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: there is nowhere left to say it."""


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
