"""Loads the configuration from a file or from environment variables.

The only reader of the environment and of secret files. All problems are reported together, each as
`FILE:LINE: path: what is wrong and what would be right`, never with a secret. `schema` describes
the file; here it is merged with the defaults and checked as a whole.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from exophone_exporter.config import certificates, schema, strict_yaml
from exophone_exporter.config.durations import duration_text
from exophone_exporter.config.fields import quoted
from exophone_exporter.config.files import (
    CONFIG_FILE_MAX_BYTES,
    ReadFile,
    read_file,
    read_text,
    reason_of,
)
from exophone_exporter.config.number_rules import (
    DEFAULT_RULES,
    MATCH_KEYS,
    NumberRule,
    NumberRules,
    matches_any,
)
from exophone_exporter.config.problems import ProblemList, listed, validate
from exophone_exporter.config.secrets import (
    SECRET_FILE_MAX_BYTES,
    Credentials,
    Secret,
    SecretSource,
    line_from_bytes,
    line_from_text,
)
from exophone_exporter.config.settings import INTERVAL_JITTER, Account, Config, PerNumber, Poll
from exophone_exporter.errors import ConfigError

_Section = TypeVar("_Section", bound=BaseModel)

ORIGINS: Final[Mapping[str, str]] = {
    "singapore": "https://api.exotel.com",
    "mumbai": "https://api.in.exotel.com",
}
_STALE_AFTER_SECONDS: Final = 900.0
_BALANCE_INTERVAL_LEAST_SECONDS: Final = 60.0
# In quotes, a placeholder, or with a space or mark that nobody sees, as copied from a page.
_SUSPICIOUS: Final = re.compile(
    r"([\"']).*\1|\$\{.*\}|<.*>|.*[\u00a0\u00ad\u200b-\u200f\u2060-\u2064\ufeff].*"
)
_WITH_COLON: Final = re.compile(".*:.*")
ENVIRONMENT_SOURCE: Final = "environment"
VARIABLES: Final = {
    "sid": "EXOTEL_ACCOUNT_SID",
    "api_key": "EXOTEL_API_KEY",
    "api_token": "EXOTEL_API_TOKEN",
    "region": "EXOTEL_REGION",
    "base_url": "EXOTEL_BASE_URL",
}

_NO_CONFIGURATION: Final = (
    "no configuration: use --config.file FILE, or set EXOTEL_ACCOUNT_SID, EXOTEL_API_KEY and"
    " EXOTEL_API_TOKEN (and EXOTEL_REGION=mumbai for an account in Mumbai); without an account,"
    " try `exophone-exporter demo`"
)


def load(
    path: str | None,
    environ: Mapping[str, str] = os.environ,
    read_file: ReadFile = read_file,
    *,
    with_secrets: bool = True,
) -> Config:
    """Load the file at `path`, or without one the account in the variables; raises ConfigError.

    Without secrets nothing that the file names is read, which serves to check the file alone.
    """
    if path is not None:
        text = read_text(path, read_file)
        return parse(text, path, environ, read_file, with_secrets=with_secrets)
    if any(name in environ or f"{name}_FILE" in environ for name in VARIABLES.values()):
        return _from_variables(environ, read_file, with_secrets=with_secrets)
    raise ConfigError([_NO_CONFIGURATION])


def parse(
    text: str,
    source: str,
    environ: Mapping[str, str],
    read_file: ReadFile = read_file,
    *,
    with_secrets: bool = True,
) -> Config:
    """Read the text of a configuration file; `source` names it in errors. Raises ConfigError."""
    document = strict_yaml.parse(text, source)
    if document.value is None:
        raise ConfigError([f"{source}: the file is empty; see config.example.yaml for an example"])
    problems = ProblemList(source, document.lines)
    return _ConfigBuilder(document.value, problems, environ, read_file, with_secrets).build()


def environment() -> Mapping[str, str]:
    """The environment of the process."""
    return os.environ


def revision(environ: Mapping[str, str] = os.environ) -> str:
    """The commit that was built, which images set in EXOPHONE_REVISION."""
    return environ.get("EXOPHONE_REVISION", "unknown")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema.File.model_json_schema(),
        "title": "exophone-exporter configuration",
    }


def _from_variables(
    environ: Mapping[str, str], read_file: ReadFile, *, with_secrets: bool
) -> Config:
    """The configuration with one account, checked like that of a file."""
    problems = ProblemList(ENVIRONMENT_SOURCE, {}, _variable_name)
    entry: dict[str, strict_yaml.Value] = {}
    for key, variable in VARIABLES.items():
        is_secret, file_variable = key in ("api_key", "api_token"), f"{variable}_FILE"
        value, file = environ.get(variable), environ.get(file_variable)
        path = ("accounts", 0, key)
        if value is not None and file is not None:
            problems.note(path, f"cannot be combined with {file_variable}; unset one of them")
        elif value is not None:
            entry |= {f"{key}_env": variable} if is_secret else {key: value}
        elif file is None and (is_secret or key == "sid"):
            problems.note(path, f"is not set, and neither is {file_variable}")
        elif file is not None and is_secret:
            entry[f"{key}_file"] = file
        elif file is not None:
            try:
                entry[key] = line_from_bytes(read_file(file, SECRET_FILE_MAX_BYTES))
            except (OSError, ValueError) as error:
                shown = strict_yaml.shown(file)
                problems.note(path, f"{file_variable}={shown}: {reason_of(error)}")
    if "sid" in entry:
        entry["name"] = entry["sid"]
    document: strict_yaml.Value = {"accounts": [entry]}
    return _ConfigBuilder(document, problems, environ, read_file, with_secrets).build()


def _variable_name(path: strict_yaml.Path) -> str:
    """The variable that sets a key of the account."""
    key = str(path[-1])
    field = "sid" if key == "name" else key.removesuffix("_file").removesuffix("_env")
    return VARIABLES.get(field, field) + ("_FILE" if key.endswith("_file") else "")


@dataclass(repr=False)  # the environment holds secrets
class _ConfigBuilder:
    """Checks one document and builds its Config, collecting every problem on the way."""

    _document: strict_yaml.Value
    _problems: ProblemList
    _environ: Mapping[str, str]
    _read_file: ReadFile
    _with_secrets: bool
    _warnings: list[str] = field(default_factory=list)

    def build(self) -> Config:
        """The Config of the document; raises ConfigError with every problem, by line."""
        file = validate(schema.File, self._document, self._problems, schema.ADVICE)
        names = self._unique_names("accounts", "account")
        self._unique_names("numbers", "rule")
        # If an account has no valid name, that may be what is wrong with a rule.
        if names and len(names) == self._count("accounts"):
            self._check_rule_accounts(names)
        rules = self._number_rules(file.numbers) if file else DEFAULT_RULES
        accounts = [self._account(at, file, rules) for at in range(self._count("accounts"))]
        if self._problems.found:
            raise self._problems.error()
        return Config(
            self._problems.source,
            tuple(account for account in accounts if account is not None),
            tuple(dict.fromkeys(self._warnings)),
        )

    def _count(self, section: str) -> int:
        """How many accounts or rules there are."""
        entries = self._fitting().get(section)
        return len(entries) if isinstance(entries, list) else 0

    def _fitting(self, *path: str | int) -> dict[str, Any]:
        """The keys of a section that have no problem; none where the file has no such section."""
        section: Any = self._document
        try:
            for part in path:
                section = section[part]
        except (LookupError, TypeError):
            return {}
        keys = section if isinstance(section, dict) else {}
        return {key: keys[key] for key in keys if (*path, key) not in self._problems}

    def _merged(self, kind: type[_Section], key: str, path: strict_yaml.Path) -> _Section:
        """A section of the file with the keys that the account at `path` sets itself."""
        return kind.model_validate(self._fitting(key) | self._fitting(*path, key))

    def _unique_names(self, section: str, label: str) -> Sequence[str]:
        """The names of accounts or rules; a second one that is equal is noted."""
        seen: dict[str, int] = {}
        for at in range(self._count(section)):
            name = self._fitting(section, at).get("name")
            if name and (first := seen.setdefault(name, at)) != at:
                self._problems.note(
                    (section, at, "name"),
                    f"`{name}` is already the name of {section}[{first}]; names must be unique,"
                    f" they are the `{label}` label",
                )
        return list(seen)

    def _check_rule_accounts(self, names: Sequence[str]) -> None:
        for at in range(self._count("numbers")):
            path = ("numbers", at, "match")
            globs = self._fitting(*path).get("account", [])
            for place, glob in enumerate([globs] if isinstance(globs, str) else globs):
                where = (*path, "account", place)
                if where in self._problems or any(matches_any([glob], name) for name in names):
                    continue
                near = difflib.get_close_matches(glob, names, n=1) or names
                self._problems.note(where, f"{quoted(glob)} matches no account; use {listed(near)}")

    def _number_rules(self, sections: Sequence[schema.NumberRuleSection]) -> NumberRules:
        rules = NumberRules(tuple(_number_rule(at, each) for at, each in enumerate(sections, 1)))
        for hidden, hiding in rules.hidden():
            self._warnings.append(
                f"{self._problems.where(('numbers', hidden.position - 1))}: the rule never applies:"
                f" numbers[{hiding.position - 1}] matches all that it matches"
            )
        return rules if sections else DEFAULT_RULES

    def _account(self, at: int, file: schema.File | None, rules: NumberRules) -> Account | None:
        """One account; None where it or anything else in the file does not fit."""
        path = ("accounts", at)
        if path in self._problems:
            return None
        given = self._fitting(*path)
        if {"region", "base_url"} <= given.keys():
            message = "cannot be combined with `region`; remove one of them"
            self._problems.note((*path, "base_url"), message)
        key = self._secret(path, given, "api_key")
        token = self._secret(path, given, "api_token")
        poll = self._poll(path)
        per_number = self._per_number(path)
        if "ca_file" in given and self._with_secrets:
            self._check_certificates((*path, "ca_file"), given["ca_file"])
        balance_interval_seconds = self._balance_interval(path)
        if file is None or key is None or token is None:
            return None
        section = file.accounts[at]
        return Account(
            name=section.name,
            sid=section.sid,
            origin=section.base_url or ORIGINS[section.region],
            credentials=Credentials(key, token),
            poll=poll,
            per_number=per_number,
            ca_file=section.ca_file,
            proxy_url=section.proxy_url,
            balance_interval_seconds=balance_interval_seconds,
            labels=tuple(sorted(section.labels.items())),
            rules=rules.of_account(section.name),
        )

    def _poll(self, path: strict_yaml.Path) -> Poll:
        merged = self._merged(schema.PollSection, "poll", path)
        stale_after = merged.stale_after or max(_STALE_AFTER_SECONDS, 3 * (merged.interval or 0))
        deadline = merged.deadline
        if "deadline" not in merged.model_fields_set:
            deadline = min(deadline, stale_after)
        poll = Poll(
            interval_seconds=merged.interval,
            timeout_seconds=merged.timeout,
            deadline_seconds=deadline,
            page_size=merged.page_size,
            requests_per_minute=merged.requests_per_minute,
            stale_after_seconds=stale_after,
            timezone=merged.timezone,
        )
        for keys, message in _contradictions(poll):
            # Each key may be set in the account or in the defaults.
            places = [(*parent, "poll", key) for parent in (path, ()) for key in keys]
            # An invalid value was replaced by the default, which contradicts nothing.
            if not any(place in self._problems for place in places):
                written = (place for place in places if place in self._problems.lines)
                self._problems.note(next(written, places[-2]), message)
        if merged.stale_after is not None:
            self._warn_if_soon_stale(poll)
        return poll

    def _warn_if_soon_stale(self, poll: Poll) -> None:
        """Data may be as old as a late start and a long poll make it."""
        interval_seconds = poll.longest_interval_seconds
        least = (1 + INTERVAL_JITTER) * interval_seconds + poll.deadline_seconds
        if poll.stale_after_seconds < least:
            stale_after, interval, deadline = map(
                duration_text,
                (poll.stale_after_seconds, interval_seconds, poll.deadline_seconds),
            )
            self._warnings.append(
                f"a stale_after of {stale_after} may hide data before the next poll is complete;"
                f" with an interval of {interval} and a deadline of {deadline}, use at least"
                f" {duration_text(math.ceil(least))}"
            )

    def _balance_interval(self, path: strict_yaml.Path) -> float | None:
        merged = self._merged(schema.BalanceSection, "balance", path)
        if not merged.enabled:
            return None
        if merged.interval < _BALANCE_INTERVAL_LEAST_SECONDS:
            self._warnings.append(
                f"the API asks for at most one request for the balance a minute; a balance"
                f" interval of {duration_text(merged.interval)} is shorter"
            )
        return merged.interval

    def _per_number(self, path: strict_yaml.Path) -> PerNumber:
        merged, key = self._merged(schema.PerNumberSection, "per_number", path), None
        if (file := merged.pseudonym_key_file) is not None and self._with_secrets:
            try:
                key = self._secret_in(file)
            except (OSError, ValueError) as error:
                place = ("per_number", "pseudonym_key_file")
                own = (*path, *place)
                where = own if own in self._problems.lines else place
                self._problems.note(where, f"{strict_yaml.shown(file)}: {reason_of(error)}")
        return PerNumber(merged.series, merged.limit, merged.phone_number, key)

    def _secret(
        self, path: strict_yaml.Path, entry: Mapping[str, str], field: str
    ) -> SecretSource | None:
        ways = [field, f"{field}_file", f"{field}_env"]
        given = [way for way in ways if way in entry]
        if any((*path, way) in self._problems for way in ways):
            return None
        if len(given) != 1:
            found = f"{listed(given)} are set" if given else "none is set"
            # The second one, if there are two, is the line to remove.
            place = (*path, given[1] if given else field)
            self._problems.note(place, f"set exactly one of {listed(ways)}; {found}")
            return None
        [way] = given
        try:
            return self._read_secret(way, entry[way])
        except (OSError, ValueError) as error:
            named = f"{_shown_path(entry[way])}: " if way.endswith("_file") else ""
            self._problems.note((*path, way), named + reason_of(error))
            return None

    def _read_secret(self, way: str, value: str) -> SecretSource:
        """The secret that a key sets; raises OSError or ValueError."""
        if not self._with_secrets and way.endswith(("_file", "_env")):
            return SecretSource(Secret("not read"))
        if way.endswith("_file"):
            source = SecretSource(self._secret_in(value), value, self._read_file)
        elif way.endswith("_env"):
            source = SecretSource(Secret(self._variable(value)))
        else:
            source = SecretSource(Secret(line_from_text(value)))
        if source.loaded.looks_like(_SUSPICIOUS):
            self._warnings.append(
                f"{way}: the value is in quotes, has an invisible character, or is a placeholder"
                " such as ${TOKEN} or <token>; is that the secret itself?"
            )
        if way.startswith("api_key") and source.loaded.looks_like(_WITH_COLON):
            raise ValueError(
                "contains a colon, which no API key does; is it key and token in one value?"
            )
        return source

    def _variable(self, name: str) -> str:
        if not self._environ.get(name):
            # A name in capitals is a variable; anything else may be the secret itself.
            shown = name if name.isupper() else "given here"
            unset = "is set but empty" if name in self._environ else "is not set"
            raise ValueError(f"the environment variable {shown} {unset}")
        return line_from_text(self._environ[name])

    def _secret_in(self, path: str) -> Secret:
        """The secret in a file; raises OSError or ValueError."""
        secret = Secret(line_from_bytes(self._read_file(path, SECRET_FILE_MAX_BYTES)))
        with contextlib.suppress(OSError):
            if Path(path).stat().st_mode & stat.S_IROTH:
                self._warnings.append(
                    f"{path} is readable by every user of this machine; run chmod o-r on it"
                )
        return secret

    def _check_certificates(self, path: strict_yaml.Path, file: str) -> None:
        try:
            problem = certificates.problem_of(self._read_file(file, CONFIG_FILE_MAX_BYTES))
        except (OSError, ValueError) as error:
            problem = reason_of(error)
        if problem:
            self._problems.note(path, f"{strict_yaml.shown(file)}: {problem}")


def _contradictions(poll: Poll) -> Iterator[tuple[tuple[str, str], str]]:
    """Pairs of keys whose values are valid alone but not together, with the reason."""
    least, stale_after = 60 / poll.requests_per_minute, duration_text(poll.stale_after_seconds)
    shortest = poll.interval_for(0)
    interval, deadline = map(duration_text, (shortest, poll.deadline_seconds))
    if shortest < least:
        yield (
            ("interval", "requests_per_minute"),
            (
                f"an interval of {interval} is too short: {poll.requests_per_minute} requests"
                f" a minute allow one request every {least:.2g}s"
            ),
        )
    if poll.deadline_seconds > poll.stale_after_seconds:
        yield (
            ("deadline", "stale_after"),
            f"a deadline of {deadline} is longer than the stale_after of {stale_after}",
        )


def _number_rule(position: int, section: schema.NumberRuleSection) -> NumberRule:
    return NumberRule(
        position,
        section.name or str(position),
        {key: tuple(globs) for key in MATCH_KEYS if (globs := getattr(section.match, key))},
        tuple(section.voice),
        tuple(section.sms),
        section.owner or "",
    )


def _shown_path(path: str) -> str:
    """A path for a message, but nothing that may be the secret itself."""
    return strict_yaml.shown(path) if set(path) & set("/.\\") else "the file given here"
