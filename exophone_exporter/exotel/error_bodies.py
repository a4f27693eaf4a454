"""What an error body says: a status code and words. Pure.

The vendor has three forms: XML RestException, the same as JSON, and {"http_code", "response"}.
Gateways in front of it send JSON of their own, HTML pages, or plain text.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final

from exophone_exporter.errors import ErrorInside
from exophone_exporter.exotel.text import clean_text, folded, is_word_for_nothing

_START_BYTES: Final = 4096
_WORDS_MAX: Final = 4096
_DEPTH_MAX: Final = 6
_OK: Final = 200
_LIST: Final = "incomingphonenumbers"
_CODE_KEYS: Final = ("httpcode", "statuscode", "httpstatus", "status", "code", "errorcode")
_OWN_CODE_KEYS: Final = ("code", "errorcode", "httpcode")
# The most telling first; an object is searched for words before the codes that have none.
_WORD_KEYS: Final = (
    "restexception",
    "errordata",
    "description",
    "errordescription",
    "detail",
    "message",
    "errormessage",
    "msg",
    "faultstring",
    "reason",
    "title",
    "error",
    "errors",
    "fault",
    "response",
)
_FAILURES: Final = ("failure", "failed", "fail", "error")
_CODE: Final = re.compile(r"\s*(?:HTTP\S*\s+)?([1-5][0-9]{2})(?:\.0+)?(?![0-9.])", re.IGNORECASE)
_DIGITS: Final = re.compile(r"\s*[0-9]")
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_HTML: Final = re.compile(r"<(?:!doctype\s+)?html\b", re.IGNORECASE)
_HTML_WORDS: Final = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)
_XML_CODE: Final = re.compile(
    r"<(?:\w+:)?(?:http_?code|status_?code|status|code)(?:\s[^>]*)?>([^<]*)<", re.IGNORECASE
)
_XML_WORDS: Final = re.compile(
    r"<((?:\w+:)?(?:error_?)?(?:message|description|detail)|faultstring)(?:\s[^>]*)?>(.*?)</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_TAG: Final = re.compile(r"</?(?!secret>)\w[^<>]*>")  # <secret> replaces one
# JSON that was cut can still hold a whole message.
_JSON_WORDS: Final = re.compile(
    r'"(?:message|description|detail)"\s*:\s*("(?:[^"\\]|\\[^u]|\\u[0-9a-f]{4})*")', re.IGNORECASE
)
_ESCAPE: Final = re.compile(r'\\(["\\/bfnrtu]?)')


def is_html(body: bytes) -> bool:
    """Whether a body is a page for a browser: the API sends none."""
    text = _start(body)
    return text.startswith("<") and _HTML.search(text) is not None


def vendor_message(body: bytes) -> str:
    """What an error body says, on one line, as a person reads it; "" where nothing is found.

    It can hold whatever the body holds: `responses` masks secrets and bounds it.
    """
    text = _start(body)
    if text.startswith("<"):
        return _markup_words(text)
    # Without the backslash of escapes that JSON does not have.
    known = _ESCAPE.sub(lambda match: match[0] if match[1] else "", text)
    try:
        value = json.loads(known, strict=False)
    except (ValueError, RecursionError):
        cut = _JSON_WORDS.search(known)
        line = _plain(json.loads(cut.group(1), strict=False) if cut else text)
        return "" if line[:1] in ("{", "[") or not line.isprintable() else line
    return "" if isinstance(value, int) else _words(value)


def error_in_markup(body: bytes) -> ErrorInside | None:
    """The error in XML that was sent where JSON was promised; None for HTML and other texts."""
    text = _start(body)
    if not text.startswith("<") or _HTML.search(text):
        return None
    codes = [_code(match.group(1)) for match in _XML_CODE.finditer(text)]
    code = next((code for code in codes if code not in (None, _OK)), None)
    is_error = code is not None or "restexception" in text.lower()
    return _error(code, _markup_words(text)) if is_error else None


def error_in_object(value: dict[str, Any]) -> ErrorInside | None:
    """The error inside the JSON of a 200; an empty list next to it does not mean no numbers."""
    keys = folded(value)
    marked = _is_marked(keys)
    if not marked and _holds_answer(keys):
        return None
    code, words = _inner_code(value), _words(value)
    failed = marked or code or keys.get("error") or keys.get("errors") or _status(keys)
    said_instead = keys.get(_LIST) is None and words
    return _error(code, words) if failed or said_instead else None


def _error(code: int | None, words: str) -> ErrorInside:
    return ErrorInside(clean_text(words, _WORDS_MAX), code)


def _holds_answer(keys: dict[str, Any]) -> Any:
    """Whether the object has what was asked for: a number, a list, or the balance of an account."""
    account = keys.get("account")
    balance = folded(account).get("balancedata") if isinstance(account, dict) else None
    return keys.get("sid") or keys.get(_LIST) or balance


def _is_marked(keys: dict[str, Any]) -> bool:
    """Whether the object says that it is an error, whatever else it holds."""
    inner = map(folded, _containers({"response": keys.get("response")}))
    return (
        bool(keys.get("restexception"))
        or _fails(keys.get("httpcode"))
        or _status(keys) == "failure"
        or any(_status(own) or _fails(own.get("code")) for own in inner)
    )


def _status(keys: dict[str, Any]) -> str:
    """The word of a status that failed, "" for any other."""
    word = str(keys.get("status")).strip().lower()
    return word if word in _FAILURES else ""


def _fails(code: Any) -> bool:
    """Whether a code was sent, and is not 200."""
    return _DIGITS.match(str(code)) is not None and _code(code) != _OK


def _code(value: Any) -> int | None:
    """An HTTP status, sent as a number or as text, such as `"404 Not Found"`."""
    match = _CODE.match(str(value))
    return int(match.group(1)) if match else None


def _inner_code(value: dict[str, Any], depth: int = _DEPTH_MAX) -> int | None:
    """The first status in an object that is not 200, that of the outermost object first."""
    if not depth:
        return None
    keys = folded(value)
    codes = [_code(keys.get(name)) for name in _CODE_KEYS]
    codes += [_inner_code(inner, depth - 1) for inner in _containers(keys)]
    return next((code for code in codes if code not in (None, _OK)), None)


def _words(value: Any, depth: int = _DEPTH_MAX) -> str:
    """The first words for people in a JSON value, or else its code."""
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and depth:
        return next(filter(None, (_words(inner, depth - 1) for inner in value)), "")
    if not isinstance(value, dict) or not depth:
        return ""
    keys = folded(value)
    inner = [keys.get(name) for name in _WORD_KEYS] + _containers(keys)
    inner += [code for name in _OWN_CODE_KEYS if (code := keys.get(name)) != _OK]
    return next(filter(None, (_words(each, depth - 1) for each in inner)), "")


def _containers(keys: dict[str, Any]) -> list[Any]:
    """The objects inside an object, the numbers of a page excepted."""
    own = [inner for name, inner in keys.items() if name != _LIST]
    lists = [inner for each in own if isinstance(each, list) for inner in each]
    return [inner for inner in own + lists if isinstance(inner, dict)]


def _markup_words(text: str) -> str:
    """The message of XML, or the title of an HTML page."""
    text = _CDATA.sub(lambda match: html.escape(match.group(1)), text)
    pattern = _HTML_WORDS if _HTML.search(text) else _XML_WORDS
    return next(filter(None, (_plain(match.group(2)) for match in pattern.finditer(text))), "")


def _plain(text: str) -> str:
    """A text on one line, without tags and entities; "" if it means nothing."""
    if "</" in text:
        text = _TAG.sub(" ", text)
    text = " ".join(html.unescape(text).split())
    return "" if is_word_for_nothing(text) else text


def _start(body: bytes) -> str:
    return body[:_START_BYTES].decode("utf-8-sig", "replace").strip()
