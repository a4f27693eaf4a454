"""Commands that break the simulated accounts and put them right again: a fire drill.

Each is a POST below `/-/` at the address of the API, accepted from the same machine only;
docs/fire-drill.md shows how to use them.
"""

from __future__ import annotations

import ipaddress
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from exophone_exporter.simulator.balance import GONE_AFTER_DAYS, Balance
from exophone_exporter.simulator.responses import Fault, RecordedRequest, Response
from exophone_exporter.simulator.world import Account

if TYPE_CHECKING:
    from exophone_exporter.simulator.server import Simulator  # which has a Drill

PREFIX: Final = "/-/"

_CHANNELS: Final = ("voice", "sms")
_SERVER_ERRORS: Final = range(500, 600)
_FAILING_SECONDS: Final = range(1, 86_401)
_EXAMPLES: Final = 3
_REFUSED_KEY: Final = "refused-by-the-fire-drill"
_NO_PERMISSION: Final = {
    "RestException": {
        "Status": 403,
        "Message": "API key does not have permission to read balance",
    }
}


class Refused(Exception):  # noqa: N818 - it says what happened to the command
    """A command that cannot be carried out: the status and what would be right."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.response = _text(status, text, headers)


class Phone(NamedTuple):
    """A number and its account."""

    account: Account
    number: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.number['phone_number']} (account {self.account.sid})"


class _Detached(NamedTuple):
    phone: Phone
    channel: str
    url: str


class _Cut(NamedTuple):
    account: Account
    balance: Balance
    numbers: list[dict[str, Any]]


class Drill:
    """The commands for one simulator; each returns what happened or raises Refused.

    A number is given by its sid or its phone number; the parameters are those of the query.
    """

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._lock = threading.Lock()
        self._detached: list[_Detached] = []
        self._released: list[Phone] = []
        self._keys: dict[str, str] = {}
        self._cut: dict[str, _Cut] = {}

    def detach(self, number: str = "", channel: str = "voice") -> str:
        """Detach the flow of a number, by default of the first that has one."""
        _check_channel(channel)
        phone = self._phone(number) if number else self.attached(channel)[0]
        url = phone.number[f"{channel}_url"]
        if not url:
            raise Refused(409, f"{phone} has no {channel} flow")
        _set_flow(phone, channel, None)
        self._detached.append(_Detached(phone, channel, url))
        return f"{phone} lost its {channel} flow."

    def attach(self, number: str = "") -> str:
        """Attach again what was detached, by default all of it."""
        only = self._phone(number).number if number else None
        due = [each for each in self._detached if only in (None, each.phone.number)]
        if not due:
            raise Refused(409, "nothing to attach: use /-/detach first")
        for each in due:
            _set_flow(*each)
            self._detached.remove(each)
        return "\n".join(f"{phone} has its {channel} flow again." for phone, channel, _ in due)

    def release(self, number: str = "", count: str = "1", account: str = "") -> str:
        """Remove a number, by default the first of the first account, or the first `count`."""
        phones = [self._phone(number)] if number else self._first(account, count)
        for phone in phones:
            with phone.account.lock:
                phone.account.numbers.remove(phone.number)
        self._released += phones
        return "\n".join(f"{phone} was released." for phone in phones)

    def refuse_key(self, account: str = "") -> str:
        """Answer 401 to the key of one account, by default of all."""
        for refused in self._accounts(account):
            self._keys.setdefault(refused.sid, refused.api_key)
            refused.api_key = _REFUSED_KEY
        return f"The API answers 401 to {account or 'every account'}."

    def fail(self, status: str = "503", seconds: str = "600", account: str = "") -> str:
        """Answer 5xx to one account, by default to all, for some seconds; ends an earlier one."""
        code = _whole("status", status, _SERVER_ERRORS)
        ends_at = time.monotonic() + _whole("seconds", seconds, _FAILING_SECONDS)
        return f"{self._answer(code, account, ends_at)} for {seconds} seconds."

    def cut_balance(self, account: str = "", days: str = "0") -> str:
        """Use up the balance of one account, by default of all; ends what `fail` began.

        It has been used up for so many `days`: after ten of them its numbers are gone.
        """
        accounts, moment = self._accounts(account), self._simulator.now()
        empty_at = moment - timedelta(days=_whole("days", days, range(GONE_AFTER_DAYS + 1)))
        self._simulator.clear_faults()
        for cut in accounts:
            with cut.lock:
                self._cut.setdefault(cut.sid, _Cut(cut, replace(cut.balance), [*cut.numbers]))
                cut.balance = replace(cut.balance, amount=Decimal(0), at=moment, empty_at=empty_at)
        gone = int(days) == GONE_AFTER_DAYS
        what = "Its numbers are gone" if gone else "The API answers 402"
        return f"No balance is left in {account or 'any account'}. {what}."

    def refuse_balance(self, account: str = "") -> str:
        """Answer 403 to requests for the balance of one account, by default of all."""
        for refused in self._accounts(account):
            fault = Fault(
                403,
                json.dumps(_NO_PERMISSION).encode(),
                {"Content-Type": "application/json"},
                endpoint="balance",
                account_sid=refused.sid,
                times=None,
            )
            self._simulator.fail(fault)
        return f"The key of {account or 'every account'} may not read the balance."

    def restore(self) -> str:
        """Put everything right again."""
        self._simulator.clear_faults()
        for account in self._accounts(""):
            account.api_key = self._keys.pop(account.sid, account.api_key)
        for account, balance, numbers in self._cut.values():
            with account.lock:
                account.balance = replace(balance, at=None)
                account.numbers[:] = account.numbers or numbers
        for account, number in self._released:
            with account.lock:
                account.numbers.append(number)
        self._cut.clear()
        self._released.clear()
        if self._detached:
            self.attach()
        return "Everything is as it was before the drill."

    def attached(self, channel: str) -> list[Phone]:
        """The numbers with a flow; there is one at least."""
        found = [phone for phone in self._phones() if phone.number[f"{channel}_url"]]
        if not found:
            raise Refused(409, f"no number has a {channel} flow")
        return found

    def usage(self) -> str:
        """The commands as text of at most 80 columns."""
        lines = ["Commands for a fire drill, each a POST, for example:", ""]
        lines += [f"  curl -X POST '{self._simulator.url}/-/detach?channel=sms'", ""]
        for name, command in COMMANDS.items():
            parameters = " ".join(f"[{parameter}=]" for parameter in command.parameters)
            lines += [f"  {PREFIX}{name}  {parameters}".rstrip(), f"      {command.what}"]
        return "\n".join([*lines, "", "A number is given by its sid or its phone number."])

    def respond(self, request: RecordedRequest, client_host: str) -> Response:
        """The response to a request below `/-/`."""
        try:
            with self._lock:
                return self._run(request, client_host)
        except Refused as refused:
            return refused.response

    def _run(self, request: RecordedRequest, client_host: str) -> Response:
        if not _is_loopback(client_host):
            raise Refused(403, "commands are accepted only from the machine that runs this")
        command = COMMANDS.get(request.path.removeprefix(PREFIX))
        if command is None and request.path != PREFIX:
            raise Refused(404, f"unknown command {request.path}\n\n{self.usage()}")
        _check_method(request, ("GET", "HEAD") if command is None else ("POST",))
        if command is None:
            return _text(200, self.usage())
        _check_parameters(request, command)
        return _text(200, f"{command.run(self, **request.query)}\n{command.expect}")

    def _answer(self, status: int, account: str, ends_at: float = math.inf) -> str:
        """Answer every request with a status, in place of earlier ones; returns a sentence."""
        accounts = self._accounts(account)
        self._simulator.clear_faults()
        for failing in accounts:
            fault = Fault(status, account_sid=failing.sid, times=None, ends_at=ends_at)
            self._simulator.fail(fault)
        return f"The API answers {status:d} to {account or 'every account'}"

    def _phone(self, wanted: str) -> Phone:
        """A number by its sid or phone number; a plus arrives as a space if it is not encoded."""
        wanted = wanted.strip()
        name = wanted.removeprefix("+")
        for phone in self._phones():
            if name in (phone.number["sid"], phone.number["phone_number"].removeprefix("+")):
                return phone
        known = [phone.number["phone_number"] for phone in self._phones()][:_EXAMPLES]
        raise Refused(404, f"unknown number `{wanted}`; the first ones are {', '.join(known)}")

    def _phones(self) -> Iterator[Phone]:
        for account in self._accounts(""):
            for number in list(account.numbers):
                yield Phone(account, number)

    def _first(self, sid: str, count: str) -> list[Phone]:
        """The first numbers of an account."""
        account = self._accounts(sid)[0]
        if not account.numbers:
            raise Refused(409, f"account {account.sid} has no numbers")
        many = _whole("count", count, range(1, len(account.numbers) + 1))
        return [Phone(account, number) for number in account.numbers[:many]]

    def _accounts(self, sid: str) -> list[Account]:
        """One account, or all of them."""
        accounts = self._simulator.world.accounts
        if sid and sid not in accounts:
            raise Refused(404, f"unknown account `{sid}`; the accounts are {', '.join(accounts)}")
        return [accounts[sid]] if sid else list(accounts.values())


class Command(NamedTuple):
    """A command, the parameters of its query, what it does, and what to expect."""

    run: Callable[..., str]
    parameters: tuple[str, ...]
    what: str
    expect: str


COMMANDS: Final = {
    "detach": Command(
        Drill.detach,
        ("number", "channel"),
        "A number loses its voice flow, or with channel=sms its SMS flow.",
        "Expect ExoPhoneFlowDetached; /-/attach puts it right.",
    ),
    "attach": Command(
        Drill.attach,
        ("number",),
        "Detached flows come back.",
        "Expect ExoPhoneFlowDetached to be resolved.",
    ),
    "release": Command(
        Drill.release,
        ("number", "count", "account"),
        "A number disappears, or as many as `count` says.",
        "Expect ExoPhoneNumbersDisappeared; /-/restore puts it right.",
    ),
    "refuse-key": Command(
        Drill.refuse_key,
        ("account",),
        "The API answers 401.",
        "Expect ExoPhoneCredentialsRejected; /-/restore puts it right.",
    ),
    "fail": Command(
        Drill.fail,
        ("status", "seconds", "account"),
        "The API answers 503, or another `status`, for 600 seconds.",
        "Expect ExoPhonePollFailing, then ExoPhoneDataStale; /-/restore puts it right.",
    ),
    "cut-balance": Command(
        Drill.cut_balance,
        ("account", "days"),
        "The balance is used up: the API answers 402. With days=10, it has been for\n"
        "      so long, and the numbers are gone.",
        "Expect ExoPhoneAccountUnpaid, with days=10 ExoPhoneNumbersDisappeared, and"
        " ExoPhoneBalanceExhausted; /-/restore puts it right.",
    ),
    "refuse-balance": Command(
        Drill.refuse_balance,
        ("account",),
        "The key may not read the balance: that API answers 403.",
        "Expect exophone_account_balance_up to be 0; /-/restore puts it right.",
    ),
    "restore": Command(
        Drill.restore,
        (),
        "Everything is put right again.",
        "Expect the alerts of the drill to be resolved.",
    ),
}


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _check_method(request: RecordedRequest, allowed: tuple[str, ...]) -> None:
    if request.method not in allowed:
        wanted = ", ".join(allowed)
        raise Refused(405, f"{request.path} needs {wanted}, not {request.method}", Allow=wanted)


def _check_parameters(request: RecordedRequest, command: Command) -> None:
    known = ", ".join(command.parameters) or "none"
    for name in request.query:
        if name not in command.parameters:
            raise Refused(400, f"unknown parameter `{name}`; {request.path} has: {known}")
    if any(
        name.lower() == "content-length" and size != "0" for name, size in request.headers.items()
    ):
        raise Refused(
            400, f"put parameters in the URL: {request.path}?NAME=VALUE; the body is not read"
        )


def _check_channel(channel: str) -> None:
    if channel not in _CHANNELS:
        raise Refused(400, f"unknown channel `{channel}`; the channels are voice and sms")


def _whole(name: str, text: str, allowed: range) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(allowed[-1]))
    if not (digits and int(text) in allowed):
        most = f"{allowed[0]} to {allowed[-1]}"
        raise Refused(400, f"{name} must be a whole number from {most}, not `{text[:20]}`")
    return int(text)


def _set_flow(phone: Phone, channel: str, url: str | None) -> None:
    with phone.account.lock:
        phone.number[f"{channel}_url"] = url


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    return Response(status, f"{text}\n".encode(), kind | (headers or {}))
