"""What the exporter is configured to do: frozen records, every value checked and filled in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exophone_exporter.config.sharding import WHOLE, Shard

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from exophone_exporter.config.schema import PhoneNumber, Series
    from exophone_exporter.config.secrets import Credentials, Secret

# A poll starts earlier or later by up to this share of the interval, so that accounts do not align.
INTERVAL_JITTER: Final = 0.05


@dataclass(frozen=True)
class Poll:
    """How one account is polled."""

    interval_seconds: float
    timeout_seconds: float
    deadline_seconds: float
    page_size: int
    requests_per_minute: int
    stale_after_seconds: float
    timezone: ZoneInfo


@dataclass(frozen=True)
class PerNumber:
    """Which per-number series an account has; see `schema.PerNumberSection` for the words."""

    series: Series
    limit: int
    phone_number: PhoneNumber
    pseudonym_key: Secret | None = None


@dataclass(frozen=True)
class Account:
    """One account to watch; `name` is the `account` label, `origin` a URL without a last slash."""

    name: str
    sid: str
    origin: str
    credentials: Credentials
    poll: Poll
    per_number: PerNumber
    ca_file: str | None
    proxy_url: str | None

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
