"""The numbers of the simulated accounts and their changes, all derived from a seed."""

from __future__ import annotations

import random
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from exophone_exporter.simulator.balance import Balance, rental


class _Place(NamedTuple):
    region: str
    area_code: str
    city: str


# No area code starts with another, or with the mobile and toll-free prefixes below.
_CIRCLES: Final = (
    _Place("MU", "22", "Mumbai"),
    _Place("DL", "11", "Delhi"),
    _Place("KA", "80", "Bengaluru"),
    _Place("TN", "44", "Chennai"),
    _Place("MH", "20", "Pune"),
    _Place("AP", "40", "Hyderabad"),
    _Place("KO", "33", "Kolkata"),
    _Place("GJ", "79", "Ahmedabad"),
    _Place("RJ", "141", "Jaipur"),
    _Place("UE", "522", "Lucknow"),
    _Place("PB", "172", "Chandigarh"),
    _Place("KL", "484", "Kochi"),
    _Place("MP", "755", "Bhopal"),
    _Place("BR", "612", "Patna"),
    _Place("HR", "180", "Panipat"),
    _Place("OR", "674", "Bhubaneswar"),
    _Place("AS", "361", "Guwahati"),
    _Place("WB", "353", "Siliguri"),
    _Place("UW", "121", "Meerut"),
    _Place("HP", "177", "Shimla"),
    _Place("JK", "194", "Srinagar"),
    _Place("NE", "364", "Shillong"),
)
_METROS: Final = 8
_METRO_WEIGHT: Final = 6
_CIRCLE_WEIGHTS: Final = [_METRO_WEIGHT if i < _METROS else 1 for i in range(len(_CIRCLES))]
_ABROAD: Final = {
    "SG": _Place("SG", "3", "Singapore"),
    "MY": _Place("MY", "3", "Kuala Lumpur"),
    "US": _Place("US", "415", "San Francisco"),
}
_CALLING_CODES: Final = {"IN": "91", "SG": "65", "MY": "60", "US": "1"}
_NATIONAL_DIGITS: Final = {"IN": 10, "SG": 8, "MY": 9, "US": 10}
_MOBILE_PREFIX: Final = "9513"
_TOLL_FREE_PREFIX: Final = "1800"
_MOBILE_SHARE: Final = 0.08

# Teams share flows: there are many numbers but few flows.
_VOICE_FLOWS: Final = {
    "Support": "410231",
    "Sales": "410232",
    "Delivery": "410377",
    "Returns": "411045",
    "Billing": "411208",
    "Clinic": "412660",
    "Reception": "413019",
    "Campaign": "415502",
}
_SMS_FLOWS: Final = ("420118", "420119", "421730")

# The tasks that some numbers of the demo keep: name, voice flow, SMS flow.
_TASKS: Final = (
    *(("Outbound", None, None),) * 5,
    *(("Payments", _VOICE_FLOWS["Billing"], _SMS_FLOWS[0]),) * 4,
    ("Payments", _VOICE_FLOWS["Campaign"], _SMS_FLOWS[0]),  # by mistake
)
_TASKS_FROM: Final = 70

# (usual, dear, free): a free allowance is a rental of zero, not a missing one.
_RENTALS: Final = {"INR": ("499.000000", "999.000000", "0.000000")}
_RENTALS_ELSEWHERE: Final = ("12.500000", "25.000000", "0.000000")
_RENTAL_WEIGHTS: Final = (76, 20, 4)

# Of every 60 numbers, one is idle, one lacks voice, one lacks SMS and one cannot receive SMS. The
# slots are fixed so that the demo shows each case with every seed.
_SLOTS: Final = 60
_IDLE_SLOT: Final = 7
_NO_VOICE_SLOT: Final = 22
_NO_SMS_SLOT: Final = 37
_TOLL_FREE_SLOT: Final = 52

_OLDEST: Final = datetime(2016, 3, 4, 9, 0, 0)  # noqa: DTZ001 - the API's times are bare, in IST
_TICKS_BEGIN: Final = datetime(2025, 1, 6, 9, 0, 0)  # noqa: DTZ001 - likewise
_SPREAD_SECONDS: Final = 8 * 365 * 86_400
_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"

_COUNT_DRIFT: Final = 3
_MINUTES_OF_A_DAY: Final = 1440


@dataclass
class Account:
    """One account of the vendor: its credentials, its balance, its numbers in the list's order.

    The detail endpoint also knows the `unlisted` ones, which left the list. Each number is a JSON
    object as documented. Hold `lock` while changing the lists or a number in them: the server holds
    it while it serialises a page.
    """

    sid: str
    api_key: str
    api_token: str = field(repr=False)
    numbers: list[dict[str, Any]] = field(default_factory=list, repr=False)
    unlisted: list[dict[str, Any]] = field(default_factory=list, repr=False)
    balance: Balance = field(default_factory=Balance, compare=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def settle(self, moment: datetime) -> None:
        """Pay what is due; after ten days with nothing left, the numbers are gone for good."""
        self.balance.advance(moment, self.numbers)
        if self.balance.loses_numbers(moment):
            self.numbers.clear()


def make_number(
    index: int, *, account_sid: str, rng: random.Random, country: str = "IN", currency: str = "INR"
) -> dict[str, Any]:
    """One number as the detail endpoint returns it; raises ValueError for an unknown country.

    Different indexes below 1,000,000 give different phone numbers within an account. Which
    numbers lack a flow follows from the index alone.
    """
    place = _place(country, rng)
    number_type = _number_type(index, country, rng)
    national = _national_number(index, account_sid, country, place, number_type)
    team = rng.choice(list(_VOICE_FLOWS))
    voice, sms = _flow_urls(index, account_sid, team)
    local = f"0{national}"
    named = rng.random() < 9 / 10
    sid = local if rng.random() < 1 / 2 else f"{rng.getrandbits(128):032x}"
    created, updated = _times(rng)
    return {
        "sid": sid,
        "date_created": created,
        "date_updated": updated,
        "account_sid": account_sid,
        "friendly_name": f"{team} {place.city} {1 + index // 12}" if named else local,
        "phone_number": f"+{_CALLING_CODES[country]}{national}",
        "capabilities": {"voice": True, "sms": number_type != "TollFree"},
        "country": country,
        "region": place.region,
        "one_time_price": "0.000000",
        "rental_price": _rental(number_type, currency, rng),
        "incoming_rate": "0.000000",
        "incoming_pulse": "60",
        "currency": currency,
        "number_type": number_type,
        "vanity_number": False,
        "voice_url": voice,
        "sms_url": sms,
        "uri": f"/v2_beta/Accounts/{account_sid}/IncomingPhoneNumbers/{sid}",
    }


def _times(rng: random.Random) -> tuple[str, str]:
    """When a number was created and updated, in IST without a zone."""
    created = _OLDEST + timedelta(seconds=rng.randrange(_SPREAD_SECONDS))
    updated = created + timedelta(seconds=rng.randrange(_SPREAD_SECONDS // 16))
    return created.strftime(_TIME_FORMAT), updated.strftime(_TIME_FORMAT)


def _place(country: str, rng: random.Random) -> _Place:
    if country not in _CALLING_CODES:
        raise ValueError(f"no numbering plan for country {country!r}")
    if country != "IN":
        return _ABROAD[country]
    return rng.choices(_CIRCLES, weights=_CIRCLE_WEIGHTS)[0]


def _number_type(index: int, country: str, rng: random.Random) -> str:
    if country != "IN":
        return "Landline"
    if index % _SLOTS == _TOLL_FREE_SLOT:
        return "TollFree"
    return "Mobile" if rng.random() < _MOBILE_SHARE else "Landline"


def _national_number(
    index: int, account_sid: str, country: str, place: _Place, number_type: str
) -> str:
    """The digits after the country code; unique for each index, but not consecutive."""
    prefixes = {"Mobile": _MOBILE_PREFIX, "TollFree": _TOLL_FREE_PREFIX}
    prefix = prefixes.get(number_type, f"{place.area_code}4")
    digits = _NATIONAL_DIGITS[country] - len(prefix)
    # The factor is coprime to every power of ten, so no two indexes collide.
    spread = (index * 611_953 + zlib.crc32(account_sid.encode())) % 10**digits
    return f"{prefix}{spread:0{digits}d}"


def _flow_urls(index: int, account_sid: str, team: str) -> tuple[str | None, str | None]:
    """The URLs of the voice and the SMS flow of a number; None without a flow."""
    slot = index % _SLOTS
    voice = _flow_url(account_sid, "voice", _VOICE_FLOWS[team])
    sms_flow_id = _SMS_FLOWS[[*_VOICE_FLOWS].index(team) % len(_SMS_FLOWS)]
    sms = _flow_url(account_sid, "sms", sms_flow_id)
    return (
        None if slot in (_IDLE_SLOT, _NO_VOICE_SLOT) else voice,
        None if slot in (_IDLE_SLOT, _NO_SMS_SLOT, _TOLL_FREE_SLOT) else sms,
    )


def _flow_url(account_sid: str, kind: str, flow_id: str) -> str:
    return f"https://my.exotel.in/{account_sid}/exoml/start_{kind}/{flow_id}"


def _rental(number_type: str, currency: str, rng: random.Random) -> str:
    usual, dear, free = _RENTALS.get(currency, _RENTALS_ELSEWHERE)
    if number_type == "TollFree":
        return dear
    return rng.choices((usual, dear, free), weights=_RENTAL_WEIGHTS)[0]


def make_account(
    sid: str, count: int, *, seed: int = 1, country: str = "IN", currency: str = "INR"
) -> Account:
    """An account of `count` numbers whose key is `<sid>-key` and whose token is `<sid>-token`.

    Its balance lasts for three months without calls; a day of calls costs a hundredth of a month.
    Raises ValueError if the country is not IN, SG, MY or US.
    """
    rng = random.Random(f"{seed}:{sid}")
    numbers = [
        make_number(index, account_sid=sid, rng=rng, country=country, currency=currency)
        for index in range(count)
    ]
    monthly = rental(numbers)[currency]
    balance = Balance(3 * monthly, currency, per_minute=round(monthly / 100 / _MINUTES_OF_A_DAY, 4))
    return Account(sid, f"{sid}-key", f"{sid}-token", numbers, balance=balance)


def demo_world(seed: int = 1) -> World:
    """A support desk across India, paid in rupees, and a small branch in Singapore, in dollars.

    Some numbers of the desk have a task, which no tick changes: to call out only, without a flow,
    or to take payments. One of these is on a wrong flow. The balance of the desk does not last
    until its next rental.
    """
    desk = make_account("acme-support", 240, seed=seed)
    desk.balance.amount = Decimal("48213.50")
    busy = [each for each in desk.numbers[_TASKS_FROM:] if each["voice_url"] and each["sms_url"]]
    for place, (number, (task, *flow_ids)) in enumerate(zip(busy, _TASKS, strict=False), start=1):
        number["friendly_name"] = f"{task} {place}"
        for kind, flow_id in zip(("voice", "sms"), flow_ids, strict=True):
            number[f"{kind}_url"] = flow_id and _flow_url(desk.sid, kind, flow_id)
    branch = make_account("acme-sg", 12, seed=seed, country="SG", currency="USD")
    return World(desk, branch, seed=seed, steady=busy[: len(_TASKS)])


@dataclass
class _Origin:
    """An account at the start; changes stay near it."""

    count: int
    next_index: int
    country: str
    currency: str


class World:
    """The accounts, and a sequence of changes to them that is derived from the seed.

    `accounts` is keyed by sid; accounts may be added, replaced or removed there. The `steady`
    numbers keep their names and flows.
    """

    def __init__(
        self, *accounts: Account, seed: int = 1, steady: Iterable[dict[str, Any]] = ()
    ) -> None:
        self.accounts: dict[str, Account] = {account.sid: account for account in accounts}
        self._steady = {number["sid"] for number in steady}
        self._rng = random.Random(seed)
        self._origins: dict[str, _Origin] = {}
        self._now = _TICKS_BEGIN
        self._changes: tuple[Callable[[Account], str | None], ...] = (
            self._attach,
            self._detach,
            self._move_flow,
            self._add,
            self._remove,
            self._change_rental,
            self._rename,
        )
        # None of these fires an alert.
        self._calm_changes = (self._move_flow, self._change_rental, self._rename)
        for account in accounts:
            self._origin(account)

    def tick(self, *, calm: bool = False) -> str:
        """Make one change to one account and return its description.

        The size of an account stays within 3 of the initial one, and few of its numbers lack a flow
        at any time; `calm` changes neither. `date_updated` follows a simulated clock. Raises
        ValueError without accounts.
        """
        if not self.accounts:
            raise ValueError("a world without accounts has nothing to change")
        self._now += timedelta(minutes=self._rng.randrange(1, 240))
        account = self._rng.choice(list(self.accounts.values()))
        changes = self._calm_changes if calm else self._changes
        with account.lock:
            for change in self._rng.sample(changes, len(changes)):
                if sentence := change(account):
                    return f"{account.sid}: {sentence}"
        return f"{account.sid}: nothing changed"

    def _origin(self, account: Account) -> _Origin:
        if account.sid not in self._origins:
            count = len(account.numbers)
            first = account.numbers[0] if account.numbers else {}
            self._origins[account.sid] = _Origin(
                count, count, first.get("country", "IN"), first.get("currency", "INR")
            )
        return self._origins[account.sid]

    def _attach(self, account: Account) -> str | None:
        """Attach a flow to a number that is capable of it and lacks it."""
        missing = _unattached(account, "voice") + _unattached(account, "sms")
        missing = [(each, kind) for each, kind in missing if each["sid"] not in self._steady]
        if not missing:
            return None
        number, kind = self._rng.choice(missing)
        return self._give_flow(account, number, kind, "got")

    def _detach(self, account: Account) -> str | None:
        """Detach a flow, unless a twentieth of the numbers (or two) lack one already."""
        kind, attached = self._attached(account)
        if not attached or len(_unattached(account, kind)) >= max(2, len(account.numbers) // 20):
            return None
        number = self._rng.choice(attached)
        number[f"{kind}_url"] = None
        self._touch(number)
        return f"{number['phone_number']} lost its {kind} flow"

    def _move_flow(self, account: Account) -> str | None:
        kind, attached = self._attached(account)
        if not attached:
            return None
        return self._give_flow(account, self._rng.choice(attached), kind, "moved to")

    def _attached(self, account: Account) -> tuple[str, list[dict[str, Any]]]:
        """Voice or SMS, and the numbers with such a flow."""
        kind = self._rng.choice(("voice", "sms"))
        return kind, [number for number in self._free(account) if number[f"{kind}_url"]]

    def _free(self, account: Account) -> list[dict[str, Any]]:
        return [number for number in account.numbers if number["sid"] not in self._steady]

    def _give_flow(self, account: Account, number: dict[str, Any], kind: str, verb: str) -> str:
        """Attach a different flow."""
        flow_ids = _VOICE_FLOWS.values() if kind == "voice" else _SMS_FLOWS
        urls = {_flow_url(account.sid, kind, flow_id): flow_id for flow_id in flow_ids}
        urls.pop(number[f"{kind}_url"], None)
        number[f"{kind}_url"] = url = self._rng.choice(list(urls))
        self._touch(number)
        return f"{number['phone_number']} {verb} {kind} flow {urls[url]}"

    def _add(self, account: Account) -> str | None:
        origin = self._origin(account)
        if len(account.numbers) >= origin.count + _COUNT_DRIFT:
            return None
        number = self._unused_number(account, origin)
        number["date_created"] = self._now.strftime(_TIME_FORMAT)
        self._touch(number)
        # Anywhere in the list: its order is undocumented, so clients must not rely on it.
        account.numbers.insert(self._rng.randint(0, len(account.numbers)), number)
        price = f"{number['rental_price']} {number['currency']}"
        return f"{number['phone_number']} was added for {price} a month"

    def _unused_number(self, account: Account, origin: _Origin) -> dict[str, Any]:
        """A number that the account does not have, even if its numbers were not generated."""
        taken = {value for held in account.numbers for value in (held["sid"], held["phone_number"])}
        while True:
            number = make_number(
                origin.next_index,
                account_sid=account.sid,
                rng=self._rng,
                country=origin.country,
                currency=origin.currency,
            )
            origin.next_index += 1
            if taken.isdisjoint((number["sid"], number["phone_number"])):
                return number

    def _remove(self, account: Account) -> str | None:
        least = max(0, self._origin(account).count - _COUNT_DRIFT)
        if len(account.numbers) <= least:
            return None
        number = account.numbers.pop(self._rng.randrange(len(account.numbers)))
        return f"{number['phone_number']} was removed"

    def _change_rental(self, account: Account) -> str | None:
        if not account.numbers:
            return None
        number = self._rng.choice(account.numbers)
        prices = _RENTALS.get(number["currency"], _RENTALS_ELSEWHERE)
        before = number["rental_price"]
        number["rental_price"] = self._rng.choice([price for price in prices if price != before])
        self._touch(number)
        change = f"{before} to {number['rental_price']} {number['currency']}"
        return f"{number['phone_number']} went from {change} a month"

    def _rename(self, account: Account) -> str | None:
        free = self._free(account)
        if not free:
            return None
        number = self._rng.choice(free)
        before = number["friendly_name"]
        teams = [team for team in _VOICE_FLOWS if not before.startswith(team)]
        number["friendly_name"] = f"{self._rng.choice(teams)} {self._rng.randrange(100, 1000)}"
        self._touch(number)
        return f"{number['phone_number']} is called {number['friendly_name']!r}, not {before!r}"

    def _touch(self, number: dict[str, Any]) -> None:
        number["date_updated"] = self._now.strftime(_TIME_FORMAT)


def _unattached(account: Account, kind: str) -> list[tuple[dict[str, Any], str]]:
    """The numbers that are capable of `kind` but have no flow for it, each with the kind."""
    return [
        (number, kind)
        for number in account.numbers
        if number["capabilities"][kind] and not number[f"{kind}_url"]
    ]
