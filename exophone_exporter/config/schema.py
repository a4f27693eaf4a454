"""The configuration file: its keys, their allowed values, defaults and descriptions.

Docstrings and defaults also go into the JSON Schema, so editors show them.
"""

from __future__ import annotations

import ipaddress
import json
import re
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from exophone_exporter.config.durations import seconds_of
from exophone_exporter.config.fields import Section, checked, one_of, quoted, refuse, text_of
from exophone_exporter.config.number_rules import CIRCLES, MATCH_KEYS, WORDS

Series = Literal["all", "unattached", "none"]
PhoneNumber = Literal["full", "last4", "hidden"]
Region = Literal["singapore", "mumbai"]

# What is shown whole, though it is two words: `5 minutes`.
_COUNT_AND_UNIT: Final = re.compile(r"[0-9.]{1,9} [A-Za-z]{1,9}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOST: Final = re.compile(
    r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?"
)
_SID_LETTERS_MAX: Final = 128
_LABEL: Final = re.compile(r"([A-Za-z]|_[A-Za-z0-9])[A-Za-z0-9_]*", re.ASCII)  # Go reads it, too
_LABEL_LETTERS_MAX: Final = 64
# Those of the series itself, of the target, and those that mean something to Prometheus.
_LABELS_TAKEN: Final = ("account", "pricing_plan", "job", "instance", "le", "quantile")
# As the exporter keeps names: none is longer, or has a control character.
_GLOB_MAX: Final = 256
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PHONE_NUMBER_GLOB: Final = re.compile(r"[*?]*\+?[0-9*?]*", re.ASCII)
_CIRCLE_CODES: Final = {name.lower(): code for code, name in CIRCLES.items()}
FLOW: Final = re.compile(r"(?=.*[0-9])[A-Za-z0-9_-]{1,64}|https?://[^\s/?#]\S*", re.ASCII)
_DAY: Final = 86400.0


def _duration(least: float, most: float, automatic: str = "") -> BeforeValidator:
    """Reads a duration in Prometheus' notation into seconds; the word `automatic` is None."""

    def read(value: Any) -> float | None:
        text = text_of(value)
        if text == automatic:
            return None
        try:
            shown = f"`{text}`" if _COUNT_AND_UNIT.fullmatch(text) else quoted(text)
            return seconds_of(text, shown, least, most)
        except ValueError as error:
            raise refuse(str(error)) from None

    alternative = f"{automatic}|" if automatic else ""
    pattern = Field(pattern=f"^({alternative}([0-9]{{1,9}}(ms|s|m|h|d))+)$")
    return BeforeValidator(read, json_schema_input_type=Annotated[str, pattern])


def _integer(least: int, most: int) -> BeforeValidator:
    """Reads a whole number within a range."""

    def read(value: Any) -> int:
        text = text_of(value)
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not digits or not least <= int(text) <= most:
            raise refuse(f"{quoted(text)} is not a whole number from {least} to {most}")
        return int(text)

    allowed = Field(ge=least, le=most)
    return BeforeValidator(read, json_schema_input_type=Annotated[int, allowed])


def _words(choice: Any) -> BeforeValidator:
    """Reads one of the words of a Literal."""
    check = one_of(*get_args(choice))
    return BeforeValidator(lambda value: check(text_of(value)), json_schema_input_type=choice)


def _boolean(value: Any) -> bool:
    return one_of("true", "false")(text_of(value)) == "true"


def _printable(letters_max: int) -> AfterValidator:
    return checked(
        lambda text: text.isprintable() and len(text) <= letters_max,
        f"must be at most {letters_max} printable characters",
    )


def _listed(value: Any) -> Any:
    """One value as a list of it."""
    if not isinstance(value, (str, list)):
        raise refuse("must be a single value or a list of them")
    return [value] if isinstance(value, str) else value


def _glob(value: Any, info: ValidationInfo) -> str:
    """A glob that can match something of the key that it is written under."""
    text = text_of(value)
    if _CONTROL.search(text) or len(text.replace("*", "")) > _GLOB_MAX:
        raise refuse(f"must be at most {_GLOB_MAX} characters and contain no control character")
    if info.field_name == "phone_number" and not _PHONE_NUMBER_GLOB.fullmatch(text):
        raise refuse(
            f"{quoted(text)} matches no phone number; use digits with `+` in front, `*` for any"
            " digits and `?` for one, such as +9180*"
        )
    if info.field_name != "friendly_name" and text != text.strip():
        raise refuse(f"{quoted(text)} begins or ends with a space, which this never does")
    if info.field_name == "region":  # tables show circles by their names
        return _CIRCLE_CODES.get(text.lower(), text)
    return text


def _words_alone(values: list[str]) -> list[str]:
    words = [value for value in values if value in WORDS]
    if words and len(values) > 1:
        raise refuse(f"`{words[0]}` must be the only value; a list is for flow ids and URLs")
    return values


def _is_sid(text: str) -> bool:
    fit = text.isascii() and text.isprintable() and not set(text) & set("/\\?#% ")
    return fit and len(text) <= _SID_LETTERS_MAX and text not in (".", "..")


def _zone(value: Any) -> ZoneInfo:
    text = text_of(value)
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise refuse(
            f"{quoted(text)} is not a known time zone; use a name such as Asia/Kolkata or UTC"
        ) from None


def _base_url(value: Any) -> str:
    url = _url(value, "https://api.exotel.com", "set them as api_key and api_token")
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        raise refuse("must use https: plain http would expose the API token")
    if "/v2_beta" in url.path:
        raise refuse("must end before /v2_beta; the exporter adds that path")
    return _joined(url)


def _proxy_url(value: Any) -> str:
    advice = "proxies that require authentication are not supported"
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
        raise refuse(f"is not a valid http or https URL; use a value such as {example}")
    if "@" in url.netloc:
        # The value is not shown: it holds the credentials.
        raise refuse(f"contains credentials; {advice}")
    if "?" in text or "#" in text:
        raise refuse("must not contain `?` or `#`")
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
        encoded = ""
    if not _HOST.fullmatch(encoded):
        raise refuse("has an invalid host name")
    return encoded


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_Text = Annotated[str, BeforeValidator(text_of)]
_Required = Annotated[str, BeforeValidator(partial(text_of, if_empty="it is required"))]
_STRING = WithJsonSchema({"type": "string"})
# What YAML reads the text as that a user wrote.
_TEXT_TYPES: Final = ["string", "number", "boolean"]
_ANY_TEXT = WithJsonSchema({"type": _TEXT_TYPES})
_URL = WithJsonSchema({"type": "string", "pattern": "^https?://[^@?# ]+$"})
_BOOLEAN: Final = BeforeValidator(_boolean, json_schema_input_type=bool)

_Name = Annotated[
    _Required,
    checked(
        _NAME.fullmatch,
        "must consist of 1 to 64 letters (a-z, A-Z), digits, `_`, `.` or `-`, and start with a"
        " letter or digit",
    ),
    _ANY_TEXT,
]
_Sid = Annotated[
    _Required,
    checked(_is_sid, "must be the account SID shown on the API settings page"),
    _ANY_TEXT,
]
_Variable = Annotated[
    _Text,
    # Not shown: it may be the secret itself.
    checked(
        _VARIABLE.fullmatch, "must be the name of an environment variable, not the secret itself"
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_VARIABLE.pattern}$"}),
]
_Owner = Annotated[_Text, _printable(64), _ANY_TEXT]
_RuleName = Annotated[
    _Text,
    _printable(64),
    checked(
        lambda text: not text.isdecimal(),
        "must not be a number, which is the name of the rule at that position",
    ),
    _ANY_TEXT,
]
_LabelName = Annotated[
    _Text,
    checked(
        lambda text: _LABEL.fullmatch(text) and len(text) <= _LABEL_LETTERS_MAX,
        f"is not a valid label name; use at most {_LABEL_LETTERS_MAX} letters (a-z, A-Z),"
        " digits and `_`, not a digit first and not `__`",
    ),
    checked(
        lambda text: text not in _LABELS_TAKEN,
        "is a label with a meaning of its own; use another name",
    ),
]
_LabelValue = Annotated[str, BeforeValidator(lambda value: text_of(value or "")), _printable(256)]
_Labels: TypeAlias = Annotated[
    dict[_LabelName, _LabelValue],
    WithJsonSchema(
        {
            "type": ["object", "null"],
            "patternProperties": {f"^{_LABEL.pattern}$": {"type": _TEXT_TYPES}},
            "additionalProperties": False,
        }
    ),
]
_TEXTS = WithJsonSchema(
    {"type": [*_TEXT_TYPES, "array"], "items": {"type": _TEXT_TYPES}, "minItems": 1}
)
_Globs: TypeAlias = Annotated[
    list[Annotated[str, BeforeValidator(_glob)]],
    BeforeValidator(_listed),
    Field(min_length=1),
    _TEXTS,
]
_Expected = Annotated[
    _Text,
    checked(
        lambda text: text in WORDS or FLOW.fullmatch(text),
        f"`{{}}` is not an expectation; use {', '.join(WORDS)}, a flow id such as"
        " 420118, an http or https URL, or a list of flow ids and URLs",
    ),
]
_Expectation: TypeAlias = Annotated[
    list[_Expected],
    BeforeValidator(_listed),
    Field(min_length=1),
    AfterValidator(_words_alone),
    _TEXTS,
]

ADVICE: Final = {
    **dict.fromkeys(
        [("too_short", key) for key in (*MATCH_KEYS, "voice", "sms")],
        "is an empty list; list at least one value or leave it out",
    ),
    ("too_short", "numbers"): "contains no rules; add one or leave it out",
    ("missing", "match"): 'is missing; a rule for every number has `match: {sid: "*"}`',
    ("too_short", "accounts"): "contains no accounts; add one, or try `exophone-exporter demo`",
    ("missing", "accounts"): (
        "is missing; list at least one account, or try `exophone-exporter demo`"
    ),
    ("missing", "name"): ("is missing; set a name, it becomes the `account` label"),
    ("missing", "sid"): (
        "is missing; copy the `Account sid` from the API settings page of the Exotel dashboard"
    ),
}


def _default(text: str) -> Any:
    """A default, written as users write it."""
    return Field(default=text, validate_default=True)


def _for_editors(schema: dict[str, Any]) -> None:
    """Adds defaults to descriptions; removes titles, and null as the value of what is absent."""
    schema.pop("title", None)
    if "required" not in schema:
        schema["type"] = ["object", "null"]  # an empty section
    for name, key in schema.get("properties", {}).items():
        optional = key.pop("anyOf", [{}])
        shown = {word: key[word] for word in key if word not in ("title", "default")} | optional[0]
        if isinstance(default := key.get("default"), str):
            shown["description"] += f" Default {default}."
            plain = shown["type"] in ("integer", "boolean")
            shown["default"] = json.loads(default) if plain else default
        schema["properties"][name] = shown


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
    def _replace_none(cls, value: Any) -> Any:
        """A key with nothing after it: an empty section is allowed, an empty value is not."""
        if not isinstance(value, dict):
            return value
        sections = ("poll", "per_number", "balance", "labels", "match")
        return {
            key: ({} if key in sections else "") if inner is None else inner
            for key, inner in value.items()
        }


class PollSection(_Section):
    """How an account is polled."""

    interval: Annotated[float | None, _duration(1.0, _DAY, "auto")] = _default("auto")
    """From the start of one poll to the start of the next; jittered, polls never overlap.

    With auto, 1m for every 10 pages of the last list, at most 5m."""
    timeout: Annotated[float, _duration(0.1, 300.0)] = _default("10s")
    """For connecting, and for each read."""
    deadline: Annotated[float, _duration(1.0, _DAY)] = _default("5m")
    """For listing all numbers once; at most stale_after."""
    page_size: Annotated[int, _integer(1, 1000)] = _default("50")
    """Numbers requested per page. The API's own default is 50."""
    requests_per_minute: Annotated[int, _integer(1, 100_000)] = _default("50")
    """Request limit of the account, probes included."""
    stale_after: Annotated[float, _duration(1.0, 30 * _DAY)] | None = None
    """Data older than this is not served. Defaults to 15m, or three intervals if that is longer."""
    timezone: Annotated[InstanceOf[ZoneInfo], BeforeValidator(_zone), _STRING] = _default(
        "Asia/Kolkata"
    )
    """Time zone of the API's timestamps."""


class PerNumberSection(_Section):
    """Which series each number has of its own."""

    series: Annotated[Series, _words(Series)] = _default("all")
    """Numbers with series of their own: all, those with a problem or without a flow, or none."""
    limit: Annotated[int, _integer(0, 1_000_000)] = _default("10000")
    """Maximum of numbers per account with series of their own; those with a problem come first."""
    phone_number: Annotated[PhoneNumber, _words(PhoneNumber)] = _default("full")
    """How phone numbers are shown, also where a sid is the number itself."""
    pseudonym_key_file: Annotated[_Text, _STRING] | None = None
    """File that contains the key of the pseudonyms for such sids. Defaults to the API token."""


class BalanceSection(_Section):
    """Whether and how often the balance of an account is asked for."""

    enabled: Annotated[bool, _BOOLEAN] = _default("false")
    """Ask for the account's balance; the API key needs the permission to read it."""
    interval: Annotated[float, _duration(1.0, _DAY)] = _default("1h")
    """From one request to the next; the vendor asks for at most one a minute."""


class MatchSection(_Section):
    """Which numbers a rule applies to: each key has a glob, or a list of which one must match."""

    account: _Globs | None = None
    """Names of accounts."""
    sid: _Globs | None = None
    """SIDs of numbers."""
    phone_number: _Globs | None = None
    """Phone numbers as the API writes them, such as +9180*, also where they are masked."""
    friendly_name: _Globs | None = None
    """Names of numbers."""
    country: _Globs | None = None
    """Countries, such as IN."""
    region: _Globs | None = None
    """Regions, such as KA, or names of Indian telecom circles, such as Karnataka."""
    number_type: _Globs | None = None
    """Types of numbers, such as Landline."""

    @model_validator(mode="after")
    def _refuse_nothing(self) -> MatchSection:
        if not self.model_fields_set:
            raise refuse('is empty; a rule for every number has `match: {sid: "*"}`')
        return self


class NumberRuleSection(_Section):
    """What the numbers that match should do; the first rule that matches applies."""

    name: _RuleName | None = None
    """Name of the rule in metrics and tables. Defaults to its position, from 1."""
    match: MatchSection
    """The numbers that the rule applies to: all keys given must match."""
    voice: _Expectation = _default("any")
    """Expected voice flow: any, none, unchecked, or flow ids and URLs."""
    sms: _Expectation = _default("any")
    """Expected SMS flow: any, none, unchecked, or flow ids and URLs."""
    owner: _Owner | None = None
    """Who owns the numbers: the label `owner` of exophone_number_info."""


class AccountSection(_Section):
    """One Exotel account."""

    model_config = ConfigDict(json_schema_extra=_account_for_editors)

    name: _Name
    """The `account` label of its series."""
    sid: _Sid
    """The account's SID, from the API settings page."""
    region: Annotated[Region, _words(Region)] = _default("singapore")
    """Region of the account; the wrong one answers 401."""
    base_url: Annotated[str, BeforeValidator(_base_url), _URL] | None = None
    """Origin of the API, such as https://api.exotel.com; replaces region."""
    api_key: Annotated[_Text, _ANY_TEXT] | None = None
    """The API key itself; prefer a file or a variable."""
    api_key_file: Annotated[_Text, _STRING] | None = None
    """File that contains the API key."""
    api_key_env: _Variable | None = None
    """Environment variable that contains the API key."""
    api_token: Annotated[_Text, _ANY_TEXT] | None = None
    """The API token itself; prefer a file or a variable."""
    api_token_file: Annotated[_Text, _STRING] | None = None
    """File that contains the API token."""
    api_token_env: _Variable | None = None
    """Environment variable that contains the API token."""
    ca_file: Annotated[_Text, _STRING] | None = None
    """PEM file of CA certificates to trust instead of the default ones."""
    proxy_url: Annotated[str, BeforeValidator(_proxy_url), _URL] | None = None
    """Proxy for requests to the API; proxy variables of the environment are ignored."""
    poll: PollSection = Field(default_factory=PollSection)
    """Overrides the poll settings for this account."""
    per_number: PerNumberSection = Field(default_factory=PerNumberSection)
    """Overrides the per_number settings for this account."""
    balance: BalanceSection = Field(default_factory=BalanceSection)
    """Overrides the balance settings for this account."""
    labels: _Labels = Field(default_factory=dict)
    """Labels of exophone_account_info, to join; they are on no other series."""


class File(_Section):
    """The configuration file of exophone-exporter."""

    poll: PollSection = Field(default_factory=PollSection)
    """Defaults for every account; an account may override any of them."""
    per_number: PerNumberSection = Field(default_factory=PerNumberSection)
    """Defaults for every account; an account may override any of them."""
    balance: BalanceSection = Field(default_factory=BalanceSection)
    """Defaults for every account; an account may override any of them."""
    accounts: list[AccountSection] = Field(min_length=1)
    """The accounts to watch."""
    numbers: list[NumberRuleSection] = Field(default=[], min_length=1)
    """What each number should do. Without rules, only `[no flow]` in a name excepts a number."""
