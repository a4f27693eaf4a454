"""Untrusted JSON becomes ExoPhones: all cleaning and tolerance is here, and nothing else.

Source: the vendor's page on the ExoPhones API; its samples are trusted where its type table
contradicts them. Every form of a value with a certain meaning is read. A value that was sent but
cannot be read is None, never 0, and its field is named in `ExoPhone.unreadable`. Pure: bytes and a
time zone in, frozen values or a PollError out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Context, Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from exophone_exporter.errors import BadBody, BadEnvelope, JsonCut
from exophone_exporter.exotel.error_bodies import error_in_markup, error_in_object
from exophone_exporter.exotel.text import clean_text, folded, is_word_for_nothing, whole_number

Channel = Literal["voice", "sms"]
CHANNELS: Final[tuple[Channel, ...]] = ("voice", "sms")
Endpoint = Literal["list", "detail", "balance"]
# Those of the numbers; not every account is asked for its balance.
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("list", "detail")
EXTERNAL_FLOW: Final = "external"
REJECTIONS: Final = ("not_an_object", "no_sid", "duplicate")
FIELDS: Final = (
    "sid",
    "date_created",
    "date_updated",
    "account_sid",
    "friendly_name",
    "phone_number",
    "capabilities",
    "country",
    "region",
    "one_time_price",
    "rental_price",
    "incoming_rate",
    "incoming_pulse",
    "currency",
    "number_type",
    "vanity_number",
    "voice_url",
    "sms_url",
    "uri",
)

_URL_MAX = 2048
# A number with an excessive exponent becomes infinite or NaN, and raises nothing.
_FRACTIONS = Context(traps=[])
_PRICE_LENGTH_MAX = 22
# 499.99999999999994 is what arithmetic in binary makes of a price.
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?")
_CURRENCY = re.compile(r"[A-Za-z]{3}", re.ASCII)
_URL = re.compile(r"https?://[^\s/?#]", re.IGNORECASE | re.ASCII)
# ISO 8601 with or without a zone, and the form of e-mail, which Twilio uses.
_TIMESTAMP = re.compile(
    r"([0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[ T](?!24)[0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,][0-9]+)?"
    r" ?(Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?",
    re.IGNORECASE,
)
_MAIL_TIMESTAMP = re.compile(
    r"(?:[A-Z][a-z]{2}, )?[0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2}"
    r" (?:UTC|GMT|(?!-0000)[+-][0-9]{4})",
    re.IGNORECASE | re.ASCII,
)
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EXOTEL_FLOW = re.compile(
    r"https?://my\.(?:exotel\.in|exotel\.com|in\.exotel\.com)/"
    r"(?:[^/?#]+/)?exoml/start(?:_voice|_sms)?/([^/?#]{1,64})/?(?:[?#].*)?",
    re.IGNORECASE | re.ASCII,
)
_ASKABLE_SID = re.compile(r"(?:(?![/\\?#%])[!-~]){1,128}")


class ExoPhone(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rented number, as the API last described it.

    Prices are in `currency`; `rental_price` is monthly, `incoming_rate` per pulse. Timestamps are
    whole seconds since 1970. A text that the API left out is "", any other value that is absent or
    unreadable is None. A capability that the API leaves out counts as present, so that nothing
    unattached stays hidden. A flow URL is "" where no flow is attached and None where it cannot be
    read.

    The garbage collector does not follow it, as none of its values can lead back to it: of a
    hundred thousand numbers each full collection would stop every scrape.
    """

    sid: str
    account_sid: str
    phone_number: str
    friendly_name: str
    country: str
    region: str
    number_type: str
    currency: str
    vanity_number: bool | None
    voice_capable: bool
    sms_capable: bool
    voice_url: str | None
    sms_url: str | None
    rental_price: Decimal | None
    one_time_price: Decimal | None
    incoming_rate: Decimal | None
    incoming_pulse_seconds: Decimal | None
    created_timestamp_seconds: int | None
    updated_timestamp_seconds: int | None
    uri: str
    unreadable: tuple[str, ...]

    def flow_url(self, channel: Channel) -> str | None:
        """The URL that calls or messages go to."""
        return self.voice_url if channel == "voice" else self.sms_url

    def capable(self, channel: Channel) -> bool:
        """Whether the number can receive calls or messages at all."""
        return self.voice_capable if channel == "voice" else self.sms_capable

    def attached(self, channel: Channel) -> bool | None:
        """Whether a flow is attached; None where the API's value cannot be read."""
        return is_attached(self.flow_url(channel))

    def unattached(self, channel: Channel) -> bool:
        """Whether the number could have a flow and has none."""
        return self.capable(channel) and self.attached(channel) is False

    def flow_id(self, channel: Channel) -> str:
        """The id of the attached flow, "external" for a URL of the customer's own, "" for none."""
        return flow_id(self.flow_url(channel) or "")

    @property
    def priced(self) -> bool:
        """Whether the monthly rental is known: an amount, and what it is counted in."""
        return self.rental_price is not None and self.currency != ""

    @property
    def needs_attention(self) -> bool:
        """Whether somebody should look at the number: unattached on a channel, or idle."""
        return self.idle or any(self.unattached(channel) for channel in CHANNELS)

    @property
    def idle(self) -> bool:
        """Whether the number has neither a voice nor an SMS flow, and so is paid for nothing."""
        return self.voice_url == "" and self.sms_url == ""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the list endpoint.

    `page` and `page_size` are None where the answer does not say. `more` is what it says of a next
    page: True or False, None where it has no such field. `rejected` counts items by REJECTIONS.
    """

    numbers: tuple[ExoPhone, ...]
    page: int | None
    page_size: int | None
    more: bool | None
    items: int
    rejected: Mapping[str, int]


def parse_page(
    body: bytes, zone: tzinfo, shared: dict[str, str] | None = None, *, first: bool = True
) -> Page:
    """Read one answer of the list endpoint; bare timestamps are in `zone`.

    `shared` keeps each text that many numbers have once in memory, for all the pages of a walk.
    Behind the `first` page, a list that is null or empty in another form is an empty list.
    Raises BadBody for what is not JSON and BadEnvelope for JSON that is not the documented object:
    as ErrorInside where it holds an error.
    """
    envelope = FieldReader(read_object(body))
    items = envelope.get("incoming_phone_numbers")
    if not first and not items and "incoming_phone_numbers" in envelope:
        items = []
    if not isinstance(items, list):
        found = "is missing" if items is None else f"has the type {_json_type(items)}"
        raise BadEnvelope(f"incoming_phone_numbers {found} where a list was promised")
    rejected: Counter[str] = Counter()
    shared = {} if shared is None else shared
    read = (_item(item, zone, rejected, shared) for item in items)
    numbers = tuple(number for number in read if number is not None)
    return Page(
        numbers=numbers,
        page=_index(envelope.get("page")),
        page_size=_index(envelope.get("page_size")) or None,
        more=bool(envelope.get("next_page_uri")) if "next_page_uri" in envelope else None,
        items=len(items),
        rejected=rejected,
    )


def parse_number(body: bytes, zone: tzinfo, asked: str | None = None) -> ExoPhone:
    """Read one answer of the detail endpoint, the bare object; raises as `parse_page` does.

    It must be about the sid that was `asked` for, and may write it in another case.
    """
    number = _item(read_object(body), zone, Counter(), {})
    if number is None:
        raise BadEnvelope("the answer is an object without a sid")
    if asked is None:
        return number
    if number.sid.lower() != asked.lower():
        raise BadEnvelope("the detail endpoint answered about another number")
    return msgspec.structs.replace(number, sid=asked)


def is_attached(url: str | None) -> bool | None:
    """What the URL of a flow says; None where it could not be read."""
    return None if url is None else url != ""


def flow_id(url: str) -> str:
    """The flow that a URL of an Exotel flow names, "external" for any other URL, "" for ""."""
    if not url:
        return ""
    match = _EXOTEL_FLOW.fullmatch(url)
    return match.group(1) if match else EXTERNAL_FLOW


def is_askable_sid(text: str) -> bool:
    """Whether a sid that somebody gave can be asked about.

    1 to 128 printable ASCII characters; its form is free otherwise, but in a path of the API it
    must name the number and nothing else.
    """
    return _ASKABLE_SID.fullmatch(text) is not None and text not in (".", "..")


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer; raises BadBody, BadEnvelope, or ErrorInside for an error."""
    value = _json(body)
    if not isinstance(value, dict):
        raise BadEnvelope(f"the answer is a JSON {_json_type(value)} where an object was promised")
    if inner := error_in_object(value):
        raise inner
    return value


def _json(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig").strip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise BadBody(f"the answer of {len(body)} bytes is not UTF-8") from error
    try:
        # NaN and the infinities are not JSON, although Python's own writer emits them: int refuses.
        return json.loads(text, parse_float=_FRACTIONS.create_decimal, parse_constant=int)
    except json.JSONDecodeError as error:
        if inner := error_in_markup(body):
            raise inner from None
        cut = text.startswith("{") and (error.pos >= len(text) or not text.endswith("}"))
        kind = JsonCut if cut else BadBody
        raise kind(f"the answer of {len(body)} bytes is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the answer of {len(body)} bytes is JSON beyond all measure") from error


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _index(value: Any) -> int | None:
    """A page number or size: sent as a number or as its digits."""
    if isinstance(value, str):
        value = whole_number(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _item(
    item: Any, zone: tzinfo, rejected: Counter[str], shared: dict[str, str]
) -> ExoPhone | None:
    if not isinstance(item, dict):
        rejected["not_an_object"] += 1
        return None
    reader = FieldReader(item, shared)
    sid = reader.text("sid").strip()
    if not sid:
        rejected["no_sid"] += 1
        return None
    voice_capable, sms_capable = reader.capabilities()
    return ExoPhone(
        sid=sid,
        account_sid=reader.word("account_sid"),
        phone_number=reader.text("phone_number").strip(),
        friendly_name=reader.text("friendly_name"),
        country=reader.word("country"),
        region=reader.word("region"),
        number_type=reader.word("number_type"),
        currency=reader.currency("currency"),
        vanity_number=reader.boolean("vanity_number"),
        voice_capable=voice_capable,
        sms_capable=sms_capable,
        voice_url=reader.url("voice_url"),
        sms_url=reader.url("sms_url"),
        rental_price=reader.decimal("rental_price"),
        one_time_price=reader.decimal("one_time_price"),
        incoming_rate=reader.decimal("incoming_rate"),
        incoming_pulse_seconds=reader.decimal("incoming_pulse"),
        created_timestamp_seconds=reader.timestamp("date_created", zone),
        updated_timestamp_seconds=reader.timestamp("date_updated", zone),
        uri=reader.text("uri"),
        unreadable=tuple(reader.unreadable),
    )


class FieldReader:
    """Reads the fields of a JSON object by their documented names, whatever case they came in.

    It remembers which of them could not be read: a text that is absent or unreadable is "",
    anything else is None. Texts that many numbers have are kept once, in `shared`.
    """

    def __init__(self, sent: dict[str, Any], shared: dict[str, str] | None = None) -> None:
        self._sent = sent
        self._folded: dict[str, Any] | None = None
        self._shared = {} if shared is None else shared
        self.unreadable: list[str] = []

    def get(self, field: str) -> Any:
        """The value of a field, None where it is missing or a text that means nothing."""
        value = self.sent(field)
        return None if isinstance(value, str) and is_word_for_nothing(value) else value

    def sent(self, field: str, default: object = None) -> Any:
        """The value of a field as it is, or the default where it is missing."""
        if field in self._sent:
            return self._sent[field]
        if self._folded is None:
            self._folded = folded(self._sent)
        return self._folded.get(field.lower().replace("_", ""), default)

    def __contains__(self, field: str) -> bool:
        return self.sent(field, self) is not self

    def inner(self, field: str) -> FieldReader | None:
        """A reader of the object in a field, None for anything else."""
        value = self.get(field)
        if isinstance(value, dict):
            return FieldReader(value)
        if value is not None:
            self.unreadable.append(field)
        return None

    def text(self, field: str) -> str:
        """A text, clean enough for a label."""
        value = self.get(field)
        if isinstance(value, str):
            return clean_text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return clean_text(str(value))
        if value is not None:
            self.unreadable.append(field)
        return ""

    def word(self, field: str) -> str:
        """A text that many numbers share."""
        return self._once(self.text(field).strip())

    def currency(self, field: str) -> str:
        """A code of three letters; amounts in anything else cannot be added up."""
        text = self.word(field)
        if text and not _CURRENCY.fullmatch(text):
            self.unreadable.append(field)
            return ""
        return self._once(text.upper())

    def url(self, field: str) -> str | None:
        """An http(s) URL, "" where the API sends none."""
        value = self.get(field)
        text = clean_text(value, _URL_MAX).strip() if isinstance(value, str) else None
        if value is None or text == "":
            return ""
        if text and _URL.match(text):
            return self._once(text)
        self.unreadable.append(field)
        return None

    def boolean(self, field: str) -> bool | None:
        """A truth value, in any case and type: "false" is one and not a word for nothing."""
        value = self.sent(field)
        text = str(value).strip().lower()
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if value is not None and not is_word_for_nothing(text):
            self.unreadable.append(field)
        return None

    def capabilities(self) -> tuple[bool, bool]:
        """Whether the number can receive calls, and messages: what is not denied counts."""
        channels = self.inner("capabilities") or FieldReader({})
        voice, sms = channels.boolean("voice"), channels.boolean("sms")
        if channels.unreadable:
            self.unreadable.append("capabilities")
        return voice is not False, sms is not False

    def decimal(self, field: str, *, signed: bool = False) -> Decimal | None:
        """An amount; below zero only where it is `signed`."""
        value = self.get(field)
        if value is None:
            return None
        # Checked here, so that the cache of what was read never holds a text of a megabyte.
        text = _digits(value)
        negative = signed and text.startswith("-")
        read = _decimal(text[negative:]) if len(text) <= _PRICE_LENGTH_MAX else None
        if read is None:
            self.unreadable.append(field)
            return None
        return -read if negative else read

    def timestamp(self, field: str, zone: tzinfo) -> int | None:
        """A time, in seconds since 1970; in `zone` where it has none of its own."""
        value = self.get(field)
        if value is None:
            return None
        read = _timestamp(value.strip(), zone) if isinstance(value, str) else None
        if read is None:
            self.unreadable.append(field)
        return read

    def _once(self, text: str) -> str:
        return self._shared.setdefault(text, text)


def _digits(value: Any) -> str:
    """An amount as a text of digits, sent as a number or as text; "" for any other type."""
    if isinstance(value, Decimal) and abs(value.adjusted()) < _PRICE_LENGTH_MAX:
        return f"{value:f}"  # a number of JSON may have an exponent
    return str(value).strip() if isinstance(value, (str, int)) else ""


@lru_cache(maxsize=1024)
def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if _DECIMAL.fullmatch(text) else None


def _timestamp(text: str, zone: tzinfo) -> int | None:
    try:
        if match := _TIMESTAMP.fullmatch(text):
            offset = "Z" if match[2] and match[2].isalpha() else match[2] or ""
            read = datetime.fromisoformat(match[1].replace("/", "-") + offset)
        elif _MAIL_TIMESTAMP.fullmatch(text):
            read = parsedate_to_datetime(text)
        else:
            return None
        moment = (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return int(moment.timestamp())
