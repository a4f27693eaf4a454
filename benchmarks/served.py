"""The exporter as a process of its own, on an API without a wire: answers are at hand.

    python benchmarks/served.py --numbers 10000 [--accounts 1] [--busy]

Everything behind the connection is the real thing: reading, snapshot, rendering, web server. With
`--busy` each poll finds every number changed, and polls follow one another without a pause. Prints
the URL when every account has been polled.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

from exophone_exporter.config import loader
from exophone_exporter.config.settings import Account, Config
from exophone_exporter.exotel.responses import Answer
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.server import open_server
from exophone_exporter.simulator import make_account
from exophone_exporter.web import routes
from exophone_exporter.web.settings import WebSettings

PAGE_SIZE = 50
_MORE = "/more"


def pages_of(sid: str, count: int, changed: str = "") -> list[bytes]:
    """The answers of the list endpoint for so many numbers; `changed` is appended to each name."""
    found = make_account(sid, count).numbers
    for number in found:
        number["friendly_name"] = f"{number['friendly_name']}{changed}"
    parts = [found[begin : begin + PAGE_SIZE] for begin in range(0, max(count, 1), PAGE_SIZE)]
    return [
        json.dumps(
            {
                "page": index,
                "page_size": PAGE_SIZE,
                "next_page_uri": _MORE if index + 1 < len(parts) else None,
                "incoming_phone_numbers": part,
            }
        ).encode()
        for index, part in enumerate(parts)
    ]


@dataclass
class Prepared:
    """The way to an API whose answers are at hand; each poll of an account meets the next world."""

    worlds: Sequence[Mapping[str, Pages]]
    polls: Counter[str] = field(default_factory=Counter)

    def __call__(self, account: Account, _: Callable[[], float]) -> Any:
        """A connection for one poll."""
        world = self.worlds[self.polls[account.sid] % len(self.worlds)]
        self.polls[account.sid] += 1
        return _Connection(world[account.sid])


@dataclass(frozen=True)
class OnDisk:
    """Answers in files, so that the simulated API does not use the exporter's memory."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, pages: Iterable[bytes]) -> Self:
        """These answers, written to a new folder."""
        folder.mkdir()
        for index, page in enumerate(pages):
            (folder / str(index)).write_bytes(page)
        return cls(folder)

    def __getitem__(self, index: int) -> bytes:
        return (self.folder / str(index)).read_bytes()


class Pages(Protocol):
    """The answers of the list endpoint by their index."""

    def __getitem__(self, index: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Connection:
    pages: Pages

    def close(self) -> None:
        """Nothing is open."""

    def get(
        self,
        url: str,
        *,
        within_seconds: float,  # noqa: ARG002 - nobody waits
        on_connect: Callable[[], None],  # noqa: ARG002 - likewise
        on_status: Callable[[int], None],
    ) -> Answer:
        """The page that is asked for."""
        on_status(200)
        (index,) = parse_qs(urlsplit(url).query)["Page"]
        return Answer(200, {}, self.pages[int(index)])


def configuration(accounts: int, interval_seconds: float) -> Config:
    """So many accounts, without the limits that the vendor's API imposes."""
    lines = [f"- {{name: a{n}, sid: a{n}, api_key: k, api_token: t}}" for n in range(accounts)]
    loaded = loader.parse("accounts:\n" + "\n".join(lines) + "\n", "benchmark", {})
    poll = replace(
        loaded.accounts[0].poll, interval_seconds=interval_seconds, requests_per_minute=10**6
    )
    per_number = replace(loaded.accounts[0].per_number, limit=10**6)
    watched = [replace(each, poll=poll, per_number=per_number) for each in loaded.accounts]
    return replace(loaded, accounts=tuple(watched))


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--numbers", type=int, default=10_000, help="in each account")
    parser.add_argument("--accounts", type=int, default=1)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--web-config", help="as --web.config.file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _serve(args, Path(folder))


def _serve(args: argparse.Namespace, folder: Path) -> None:
    worlds = [
        {
            f"a{n}": OnDisk.of(folder / f"{n}{mark}", pages_of(f"a{n}", args.numbers, mark))
            for n in range(args.accounts)
        }
        for mark in (("", "'") if args.busy else ("",))
    ]
    logging.disable(logging.WARNING)  # polls without a pause are wanted here
    exporter = Exporter(
        configuration(args.accounts, 0.01 if args.busy else 3600.0), connect=Prepared(worlds)
    )
    server = open_server(
        routes.application(exporter, WebSettings()),
        addresses=["127.0.0.1:0"],
        web_config_file=args.web_config,
        on_stop=exporter.ask_to_stop,
    )
    (url,) = server.urls
    threading.Thread(target=_tell_when_ready, args=(exporter, url), daemon=True).start()
    exporter.start()
    server.run()
    exporter.stop()


def _tell_when_ready(exporter: Exporter, url: str) -> None:
    while not exporter.ready():
        time.sleep(0.01)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
