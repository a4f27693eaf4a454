"""What the exporter is configured to do: frozen records, every value checked and filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final
from zoneinfo import ZoneInfo

from exophone_exporter.config.number_rules import DEFAULT_RULES, NumberRules
from exophone_exporter.config.schema import PhoneNumber, Series
from exophone_exporter.config.secrets import Credentials, Secret
from exophone_exporter.config.sharding import WHOLE, Shard

# A poll starts earlier or later by up to this share of the interval, so that accounts do not align.
INTERVAL_JITTER: Final = 0.05

_AUTO_SECONDS: Final = 60.0
_AUTO_MAX_SECONDS: Final = 300.0
_AUTO_PAGES: Final = 10


@dataclass(frozen=True)
class Poll:
    """How one account is polled; an interval of None follows the length of the list."""

    interval_seconds: float | None
    timeout_seconds: float
    deadline_seconds: float
    page_size: int
    requests_per_minute: int
    stale_after_seconds: float
    timezone: ZoneInfo

    def interval_for(self, pages: int) -> float:
        """Seconds from the start of one poll to that of the next, after a list of so many pages."""
        if self.interval_seconds is not None:
            return self.interval_seconds
        return min(_AUTO_SECONDS * max(1, math.ceil(pages / _AUTO_PAGES)), _AUTO_MAX_SECONDS)

    @property
    def longest_interval_seconds(self) -> float:
        """The same after a list of any length."""
        return self.interval_seconds or _AUTO_MAX_SECONDS


@dataclass(frozen=True)
class PerNumber:
    """Which per-number series an account has; see `schema.PerNumberSection` for the words."""

    series: Series
    limit: int
    phone_number: PhoneNumber
    pseudonym_key: Secret | None = None


@dataclass(frozen=True)
class Account:
    """One account to watch; `name` is the `account` label, `origin` a URL without a last slash.

    Without a `balance_interval_seconds` its balance is not asked for. `labels` are pairs of name
    and value. `rules` are those that can apply to its numbers.
    """

    name: str
    sid: str
    origin: str
    credentials: Credentials
    poll: Poll
    per_number: PerNumber
    ca_file: str | None
    proxy_url: str | None
    balance_interval_seconds: float | None = None
    labels: tuple[tuple[str, str], ...] = ()
    rules: NumberRules = DEFAULT_RULES

    @property
    def pseudonym_key(self) -> bytes:
        """The key of its pseudonyms: the configured one, or else derived from its API token.

        It follows a token that is rotated in its file. Empty where nothing is masked.
        """
        if self.per_number.phone_number == "full":
            return b""
        secret = self.per_number.pseudonym_key or self.credentials.api_token.loaded
        return secret.key(b"pseudonyms")


@dataclass(frozen=True)
class Config:
    """A configuration that can be used; `warnings` are lines for the log.

    `accounts` are those of the `shard` that this process has, in the order of the source.
    """

    source: str
    accounts: tuple[Account, ...]
    warnings: tuple[str, ...]
    shard: Shard = WHOLE

    def share(self, shard: Shard | None) -> Config:
        """The same, with the accounts of one shard; None leaves all of them."""
        if shard is None:
            return self
        accounts = tuple(account for account in self.accounts if shard.holds(account.name))
        return replace(self, accounts=accounts, shard=shard)
