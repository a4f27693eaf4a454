"""The shape of the configuration file: its keys, what each may hold, and the words for editors.

Every scalar arrives as the text that was written. Docstrings and descriptions end up in the JSON
Schema, so that an editor shows them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    WithJsonSchema,
    model_validator,
)

from exophone_exporter.config.fields import Section, one_of, quoted, refuse, text_of

Series = Literal["all", "unattached", "none"]
PhoneNumber = Literal["full", "last4", "hidden"]

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h|d))+", re.ASCII)
_DURATION_PART: Final = re.compile(r"([0-9]+)(ms|s|m|h|d)", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOST: Final = re.compile(
    r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?"
)
_SID_LETTERS_MAX: Final = 128
_DAY: Final = 86400.0


def _duration(least: float, most: float) -> Any:
    """A duration in Prometheus' notation, in seconds, within a range."""

    def read(value: Any) -> float:
        text = text_of(value)
        if not _DURATION.fullmatch(text):
            raise refuse(f"{quoted(text)} is not a duration; write it like 30s, 5m or 1h30m")
        parts = _DURATION_PART.findall(text)
        seconds = sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        if not least <= seconds <= most:
            raise refuse(
                f"{quoted(text)} is out of range; allowed are {span(least)} to {span(most)}"
            )
        return float(seconds)

    schema = {"type": "string", "pattern": "^([0-9]{1,9}(ms|s|m|h|d))+$"}
    return Annotated[float, BeforeValidator(read), WithJsonSchema(schema)]


def span(seconds: float) -> str:
    """Seconds as people write them, in the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNIT_SECONDS[unit] and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds / _UNIT_SECONDS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms"


def _whole(least: int, most: int) -> Any:
    """A whole number within a range."""

    def read(value: Any) -> int:
        text = text_of(value)
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not digits or not least <= int(text) <= most:
            raise refuse(f"{quoted(text)} is not a whole number from {least} to {most}")
        return int(text)

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Annotated[int, BeforeValidator(read), WithJsonSchema(schema)]


def _name(value: Any) -> str:
    text = text_of(value)
    if not _NAME.fullmatch(text):
        raise refuse(
            "must be 1 to 64 letters a-z or A-Z, digits, `_`, `.` or `-`, and begin with a letter"
            " or digit: it is a label"
        )
    return text


def _sid(value: Any) -> str:
    text = text_of(value)
    fit = text.isascii() and text.isprintable() and not set(text) & set("/\\?#% ")
    if not fit or len(text) > _SID_LETTERS_MAX or text in (".", ".."):
        raise refuse("must be the account's SID as the API settings page shows it")
    return text


def _zone(value: Any) -> ZoneInfo:
    text = text_of(value)
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise refuse(
            f"{quoted(text)} is not a time zone; write it like Asia/Kolkata or UTC"
        ) from None


def _variable(value: Any) -> str:
    text = text_of(value)
    if not _VARIABLE.fullmatch(text):
        # Not shown: it may be the secret itself.
        raise refuse("must be the name of a variable of the environment, not the secret")
    return text


def _base_url(value: Any) -> str:
    url = _url(value, "https://api.exotel.com", "give them as api_key and api_token")
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        raise refuse("must be https: over plain http everyone on the way could read the API token")
    if "/v2_beta" in url.path:
        raise refuse("must end before /v2_beta: the exporter adds the path")
    return _joined(url)


def _proxy_url(value: Any) -> str:
    advice = "a proxy that asks for them is not supported"
    return _joined(_url(value, "http://proxy.example:3128", advice))


def _url(value: Any, example: str, advice: str) -> SplitResult:
    text = text_of(value)
    try:
        url = urlsplit(text)
        fit = bool(url.hostname) and url.scheme in ("http", "https") and url.port != 0
    except ValueError:
        fit = False
    # urlsplit drops newlines and tabs, and lets everything else be part of a host.
    if not fit or not text.isprintable() or set(text) & set(" \\"):
        raise refuse(f"is not a URL of http or https; write it like {example}")
    if "@" in url.netloc:
        # The value is not shown: it holds the credentials.
        raise refuse(f"holds credentials, which URLs show to everyone; {advice}")
    if "?" in text or "#" in text:
        raise refuse("must end before the `?` or `#`")
    return url


def _joined(url: SplitResult) -> str:
    host = _host(url.hostname or "")
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{host}{port}{url.path.rstrip('/')}"


def _host(host: str) -> str:
    """The host as it goes on the wire: brackets around IPv6, Punycode for other letters."""
    try:
        if ":" in host:
            return f"[{ipaddress.IPv6Address(host)}]"
        encoded = host.encode("idna").decode("ascii")
    except ValueError:
        raise refuse("has a host name that does not exist") from None
    if not _HOST.fullmatch(encoded):
        raise refuse("has a host name that does not exist")
    return encoded


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_Text = Annotated[str, BeforeValidator(text_of)]
_STRING = WithJsonSchema({"type": "string"})
_STRING_OR_NUMBER = WithJsonSchema({"type": ["string", "number"]})
_URL = WithJsonSchema({"type": "string", "pattern": "^https?://[^@?# ]+$"})
_VARIABLE_NAME = WithJsonSchema({"type": "string", "pattern": f"^{_VARIABLE.pattern}$"})

ADVICE: Final = {
    ("too_short", "accounts"): "holds no account; add one, or try `exophone-exporter demo`",
    ("missing", "accounts"): (
        "is missing; list at least one account, or try `exophone-exporter demo`"
    ),
    ("missing", "name"): ("is missing; give the account a name, it becomes the `account` label"),
    ("missing", "sid"): (
        "is missing; it is the `Account sid` on the API settings page of the Exotel dashboard"
    ),
}


def _for_editors(schema: dict[str, Any]) -> None:
    """Leave out what pydantic adds for programs: titles, and null as the value of what is absent.

    `Default 5m.` at the end of a description becomes the default that an editor offers.
    """
    schema.pop("title", None)
    for name, key in schema.get("properties", {}).items():
        optional = key.pop("anyOf", [{}])
        shown_key = {word: key[word] for word in key if word not in ("title", "default")}
        schema["properties"][name] = shown_key | optional[0] | _default(key["description"])


def _default(description: str) -> dict[str, str | int]:
    found = re.search(r"Default ([A-Za-z0-9/]+)\.$", description)
    if not found:
        return {}
    return {"default": int(found[1]) if found[1].isdigit() else found[1]}


def _account_for_editors(schema: dict[str, Any]) -> None:
    _for_editors(schema)
    schema["allOf"] = [
        {"oneOf": [{"required": [f"{secret}{way}"]} for way in ("", "_file", "_env")]}
        for secret in ("api_key", "api_token")
    ]
    schema["not"] = {"required": ["region", "base_url"]}


class _Section(Section):
    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_for_editors)

    @model_validator(mode="before")
    @classmethod
    def _read_nothing(cls, value: Any) -> Any:
        """A key with nothing after it: an empty section is one, an empty value is a mistake."""
        if not isinstance(value, dict):
            return value
        empty: dict[str, Any] = {"poll": {}, "per_number": {}}
        return {key: empty.get(key, "") if inner is None else inner for key, inner in value.items()}


class PollSection(_Section):
    """How an account is polled."""

    interval: _duration(1.0, _DAY) | None = None  # type: ignore[valid-type]  # a factory of types
    """Start to start of two polls, jittered, never overlapping. Default 5m."""
    timeout: _duration(0.1, 300.0) | None = None  # type: ignore[valid-type]  # likewise
    """For the connection, and for each read. Default 10s."""
    deadline: _duration(1.0, _DAY) | None = None  # type: ignore[valid-type]  # likewise
    """For one whole walk of the list; at most stale_after. Default 5m."""
    page_size: _whole(1, 1000) | None = None  # type: ignore[valid-type]  # likewise
    """Numbers asked for per page. The API's own is 50. Default 50."""
    requests_per_minute: _whole(1, 100_000) | None = None  # type: ignore[valid-type]  # likewise
    """The budget of the account, probes included. Default 50."""
    stale_after: _duration(1.0, 30 * _DAY) | None = None  # type: ignore[valid-type]  # likewise
    """Older data is not served; without it, three intervals."""
    timezone: Annotated[InstanceOf[ZoneInfo], BeforeValidator(_zone), _STRING] | None = None
    """Of the API's bare timestamps. Default Asia/Kolkata."""


class PerNumberSection(_Section):
    """Which series each number has of its own."""

    series: Annotated[Series, BeforeValidator(one_of("all", "unattached", "none"))] | None = None
    """Series for all numbers, for the unattached ones only, or for none. Default all."""
    limit: _whole(0, 1_000_000) | None = None  # type: ignore[valid-type]  # likewise
    """Numbers per account with series of their own; unattached ones come first. Default 10000."""
    phone_number: (
        Annotated[PhoneNumber, BeforeValidator(one_of("full", "last4", "hidden"))] | None
    ) = None
    """How phone numbers are shown, also where a sid is the number itself. Default full."""


class AccountSection(_Section):
    """One Exotel account."""

    model_config = ConfigDict(json_schema_extra=_account_for_editors)

    name: Annotated[str, BeforeValidator(_name), _STRING_OR_NUMBER]
    """The `account` label of its series."""
    sid: Annotated[str, BeforeValidator(_sid), _STRING_OR_NUMBER]
    """The account's SID, from the API settings page."""
    region: (
        Annotated[Literal["singapore", "mumbai"], BeforeValidator(one_of("singapore", "mumbai"))]
        | None
    ) = None
    """Where the account lives; the wrong one answers 401. Default singapore."""
    base_url: Annotated[str, BeforeValidator(_base_url), _URL] | None = None
    """In place of region: the origin of the API, such as https://api.exotel.com."""
    api_key: Annotated[_Text, _STRING_OR_NUMBER] | None = None
    """The API key itself; a file or a variable is better."""
    api_key_file: Annotated[_Text, _STRING] | None = None
    """A file that holds the API key."""
    api_key_env: Annotated[str, BeforeValidator(_variable), _VARIABLE_NAME] | None = None
    """A variable of the environment that holds the API key."""
    api_token: Annotated[_Text, _STRING_OR_NUMBER] | None = None
    """The API token itself; a file or a variable is better."""
    api_token_file: Annotated[_Text, _STRING] | None = None
    """A file that holds the API token."""
    api_token_env: Annotated[str, BeforeValidator(_variable), _VARIABLE_NAME] | None = None
    """A variable of the environment that holds the API token."""
    ca_file: Annotated[_Text, _STRING] | None = None
    """Certificates (PEM) to trust in place of the usual ones."""
    proxy_url: Annotated[str, BeforeValidator(_proxy_url), _URL] | None = None
    """A proxy for requests to the API; those of the environment are ignored."""
    poll: PollSection = Field(default_factory=PollSection)
    """Overrides the poll settings for this account."""
    per_number: PerNumberSection = Field(default_factory=PerNumberSection)
    """Overrides the per_number settings for this account."""


class File(_Section):
    """The configuration file of exophone-exporter."""

    poll: PollSection = Field(default_factory=PollSection)
    """Defaults for every account; an account may override any of them."""
    per_number: PerNumberSection = Field(default_factory=PerNumberSection)
    """Defaults for every account; an account may override any of them."""
    accounts: list[AccountSection] = Field(min_length=1)
    """The accounts to watch."""
