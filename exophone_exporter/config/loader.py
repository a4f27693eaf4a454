"""One file or a handful of variables become one frozen `Config`, or every error at once.

The only reader of YAML, of the environment and of secret files. A problem reads
`FILE:LINE: path: what is wrong and what would be right` and never shows a secret. The shape of
the file stands in `config_shape`; here it is read, filled with defaults and checked as a whole.
"""

from __future__ import annotations

import copy
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from exophone_exporter.config import schema, strict_yaml
from exophone_exporter.config.files import (
    CONFIG_FILE_MAX_BYTES,
    ReadFile,
    read_file,
    read_text,
    reason_of,
)
from exophone_exporter.config.problems import ProblemList, dotted, listed, read_document, validate
from exophone_exporter.config.schema import span
from exophone_exporter.config.secrets import (
    SECRET_FILE_MAX_BYTES,
    Credentials,
    SecretSource,
    line_from_bytes,
    secret_from_bytes,
    secret_from_text,
)
from exophone_exporter.config.settings import Account, Config, PerNumber, Poll
from exophone_exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ORIGINS: Final[Mapping[str, str]] = {
    "singapore": "https://api.exotel.com",
    "mumbai": "https://api.in.exotel.com",
}
ENVIRONMENT_SOURCE: Final = "environment"
_FIELD_OF_VARIABLE: Final = {
    "EXOTEL_ACCOUNT_SID": "sid",
    "EXOTEL_API_KEY": "api_key",
    "EXOTEL_API_TOKEN": "api_token",
    "EXOTEL_REGION": "region",
    "EXOTEL_BASE_URL": "base_url",
}
_DEFAULT_DEADLINE_SECONDS: Final = 300.0

_NO_CONFIGURATION: Final = (
    "no configuration: give --config.file FILE, or set EXOTEL_ACCOUNT_SID, EXOTEL_API_KEY and"
    " EXOTEL_API_TOKEN (and EXOTEL_REGION=mumbai if the account lives there); without an account,"
    " try `exophone-exporter demo`"
)


def load(
    path: str | None,
    environ: Mapping[str, str] = os.environ,
    read_file: ReadFile = read_file,
) -> Config:
    """Load the file at `path`, or the account that the variables describe; raises ConfigError."""
    if path is not None:
        return parse(read_text(path, read_file), path, environ, read_file)
    if any(name in environ or f"{name}_FILE" in environ for name in _FIELD_OF_VARIABLE):
        return _from_variables(environ, read_file)
    raise ConfigError([_NO_CONFIGURATION])


def parse(
    text: str, source: str, environ: Mapping[str, str], read_file: ReadFile = read_file
) -> Config:
    """Read the text of a configuration file; `source` names it in errors. Raises ConfigError."""
    document = read_document(text, source)
    if document.value is None:
        raise ConfigError([f"{source}: the file is empty; config.example.yaml shows what it holds"])
    return _ConfigBuilder(source, document.lines, environ, read_file).config(document.value)


def environment() -> Mapping[str, str]:
    """The environment of the process, for those who are handed it."""
    return os.environ


def revision(environ: Mapping[str, str] = os.environ) -> str:
    """The commit that was built, which an image says in EXOPHONE_REVISION.

    It becomes a label value: bytes that are not UTF-8 would fail every scrape.
    """
    return environ.get("EXOPHONE_REVISION", "unknown")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema.File.model_json_schema(),
        "title": "exophone-exporter configuration",
    }


def _from_variables(environ: Mapping[str, str], read_file: ReadFile) -> Config:
    """The same way as a file, with variables in the place of lines."""
    build = _ConfigBuilder(ENVIRONMENT_SOURCE, {}, environ, read_file)
    entry: dict[str, strict_yaml.Value] = {}
    for variable, field in _FIELD_OF_VARIABLE.items():
        try:
            entry |= _variable(variable, field, environ, read_file)
        except ValueError as error:
            build.problems.note_first(("accounts", 0, field), str(error))
    if "sid" in entry:
        entry["name"] = entry["sid"]
    return build.config({"accounts": [entry]})


def _variable(
    variable: str, field: str, environ: Mapping[str, str], read_file: ReadFile
) -> dict[str, strict_yaml.Value]:
    """The keys of an account that one variable, or its _FILE form, stands for."""
    file_variable = f"{variable}_FILE"
    secret = field in ("api_key", "api_token")
    if variable in environ and file_variable in environ:
        raise ValueError(f"is set, and {file_variable} too; keep one of them")
    if file_variable in environ:
        path = environ[file_variable]
        if secret:
            return {f"{field}_file": path}
        try:
            return {field: line_from_bytes(read_file(path, SECRET_FILE_MAX_BYTES))}
        except (OSError, ValueError) as error:
            named = f"{file_variable}={strict_yaml.shown(path)}"
            raise ValueError(f"{named}: {reason_of(error)}") from error
    if variable in environ:
        return {f"{field}_env": variable} if secret else {field: environ[variable]}
    if field in ("sid", "api_key", "api_token"):
        raise ValueError(f"is not set (nor {file_variable})")
    return {}


class _ConfigBuilder:
    """Checks one document and makes the Config of it, collecting every problem on the way."""

    def __init__(
        self,
        source: str,
        lines: Mapping[strict_yaml.Path, int],
        environ: Mapping[str, str],
        read_file: ReadFile,
    ) -> None:
        self._source = source
        self._lines = lines
        self._environ = environ
        self._read_file = read_file
        self.problems = ProblemList(source, lines, self._name)
        self._warnings: list[str] = []

    def config(self, value: strict_yaml.Value) -> Config:
        """The Config of the document's value; raises ConfigError with every problem, by line."""
        file = self._file(value)
        self._check_names(file)
        accounts = [self._account(index, file) for index in range(len(file.accounts))]
        if self.problems:
            raise self.problems.error()
        return Config(
            self._source,
            tuple(a for a in accounts if a is not None),
            tuple(dict.fromkeys(self._warnings)),
        )

    def _file(self, value: strict_yaml.Value) -> schema.File:
        """The file in its shape; what is out of shape is noted, and left out for later checks."""
        file = validate(schema.File, value, self.problems, schema.ADVICE)
        if file is None:
            rest = _without(value, self.problems.paths)
            file = validate(schema.File, rest, self.problems, schema.ADVICE)
        if file is None:
            raise self.problems.error()
        return file

    def _name(self, path: strict_yaml.Path) -> str:
        """What a person calls the place: the variable, where there is no file."""
        if self._source != ENVIRONMENT_SOURCE:
            return dotted(path)
        field = str(path[-1]) if path else ""
        suffix = "_FILE" if field.endswith("_file") else ""
        field = "sid" if field == "name" else field.removesuffix("_file").removesuffix("_env")
        return next((v for v, f in _FIELD_OF_VARIABLE.items() if f == field), field) + suffix

    def _check_names(self, file: schema.File) -> None:
        first: dict[str, int] = {}
        for index, account in enumerate(file.accounts):
            if account.name in first:
                self.problems.note_first(
                    ("accounts", index, "name"),
                    f"`{account.name}` is also the name of accounts[{first[account.name]}];"
                    " names must differ, they are the `account` label",
                )
            first.setdefault(account.name, index)

    def _account(self, index: int, file: schema.File) -> Account | None:
        entry = file.accounts[index]
        path = ("accounts", index)
        before = len(self.problems)
        if path in self.problems:
            return None
        if entry.region is not None and entry.base_url is not None:
            self.problems.note_first(
                (*path, "base_url"), "stands beside `region`; keep one of them"
            )
        key = self._secret(path, entry, "api_key")
        token = self._secret(path, entry, "api_token")
        poll = self._poll(path, file.poll, entry.poll)
        if entry.ca_file is not None:
            self._check_certificates((*path, "ca_file"), entry.ca_file)
        if len(self.problems) > before or key is None or token is None:
            return None
        return Account(
            name=entry.name,
            sid=entry.sid,
            origin=entry.base_url or ORIGINS[entry.region or "singapore"],
            credentials=Credentials(key, token),
            poll=poll,
            per_number=PerNumber(
                series=_first(entry.per_number.series, file.per_number.series, "all"),
                limit=_first(entry.per_number.limit, file.per_number.limit, 10_000),
                phone_number=_first(
                    entry.per_number.phone_number, file.per_number.phone_number, "full"
                ),
            ),
            ca_file=entry.ca_file,
            proxy_url=entry.proxy_url,
        )

    def _poll(
        self, path: strict_yaml.Path, common: schema.PollSection, own: schema.PollSection
    ) -> Poll:
        interval = _first(own.interval, common.interval, 300.0)
        stale_after = _first(own.stale_after, common.stale_after, 3 * interval)
        poll = Poll(
            interval_seconds=interval,
            timeout_seconds=_first(own.timeout, common.timeout, 10.0),
            deadline_seconds=_first(
                own.deadline, common.deadline, min(_DEFAULT_DEADLINE_SECONDS, stale_after)
            ),
            page_size=_first(own.page_size, common.page_size, 50),
            requests_per_minute=_first(own.requests_per_minute, common.requests_per_minute, 50),
            stale_after_seconds=stale_after,
            timezone=_first(own.timezone, common.timezone, ZoneInfo("Asia/Kolkata")),
        )
        for keys, message in _contradictions(poll):
            places = self._places(path, keys)
            # A value that was out of shape is a default here, and contradicts nothing.
            if not any(place in self.problems for place in places):
                self.problems.note_first(
                    next((p for p in places if p in self._lines), places[-2]), message
                )
        return poll

    @staticmethod
    def _places(path: strict_yaml.Path, keys: tuple[str, str]) -> list[strict_yaml.Path]:
        """Where two poll keys may be written: in the account first, else among the defaults."""
        return [(*parent, "poll", key) for parent in (path, ()) for key in keys]

    def _secret(
        self, path: strict_yaml.Path, entry: schema.AccountSection, field: str
    ) -> SecretSource | None:
        ways = {
            f"{field}{suffix}": getattr(entry, f"{field}{suffix}")
            for suffix in ("", "_file", "_env")
        }
        given = {way: value for way, value in ways.items() if value is not None}
        if any((*path, way) in self.problems for way in ways):
            return None
        if len(given) != 1:
            found = "none of them stands here" if not given else f"here stand {listed(given)}"
            # The second way, where there is one, is the line to remove.
            place = list(given)[1] if given else field
            self.problems.note_first((*path, place), f"give one of {listed(ways)}; {found}")
            return None
        way, value = given.popitem()
        try:
            return self._secret_source(way, value, field)
        except (OSError, ValueError) as error:
            named = f"{_shown_path(value)}: " if way.endswith("_file") else ""
            self.problems.note_first((*path, way), named + reason_of(error))
            return None

    def _secret_source(self, way: str, value: str, field: str) -> SecretSource:
        if way.endswith("_file"):
            secret = secret_from_bytes(self._read_file(value, SECRET_FILE_MAX_BYTES))
            self._warn_if_open(value)
            source = SecretSource(secret, value, self._read_file)
        elif way.endswith("_env"):
            if not self._environ.get(value):
                unset = "is set but empty" if value in self._environ else "is not set"
                # A name in capitals is a variable; anything else may be the secret itself.
                name = value if value.isupper() else "named here"
                raise ValueError(f"the variable {name} {unset}")
            source = SecretSource(secret_from_text(self._environ[value]))
        else:
            source = SecretSource(secret_from_text(value))
        if field == "api_key" and source.loaded.has_colon():
            raise ValueError("holds a colon, which no API key does; is it key and token in one?")
        return source

    def _warn_if_open(self, path: str) -> None:
        try:
            mode = Path(path).stat().st_mode
        except OSError:
            return
        if mode & stat.S_IROTH:
            self._warnings.append(f"{path} can be read by every user of this machine; chmod o-r it")

    def _check_certificates(self, path: strict_yaml.Path, file: str) -> None:
        try:
            content = self._read_file(file, CONFIG_FILE_MAX_BYTES)
        except (OSError, ValueError) as error:
            self.problems.note_first(path, f"{strict_yaml.shown(file)}: {reason_of(error)}")
            return
        if b"-----BEGIN " not in content:
            self.problems.note_first(
                path, f"{strict_yaml.shown(file)}: holds no certificate in PEM form"
            )


def _contradictions(poll: Poll) -> Iterator[tuple[tuple[str, str], str]]:
    """Pairs of keys that are sound alone and not together, with what would be right."""
    least = 60 / poll.requests_per_minute
    interval, stale_after = span(poll.interval_seconds), span(poll.stale_after_seconds)
    if poll.interval_seconds < least:
        message = (
            f"an interval of {interval} is shorter than {least:.2g}s, the time that one request"
            f" takes of the budget of {poll.requests_per_minute} requests a minute"
        )
        yield ("interval", "requests_per_minute"), message
    if poll.stale_after_seconds < poll.interval_seconds:
        message = (
            f"a stale_after of {stale_after} is shorter than the interval of {interval}:"
            " data would be stale before the next poll"
        )
        yield ("stale_after", "interval"), message
    if poll.deadline_seconds > poll.stale_after_seconds:
        deadline = span(poll.deadline_seconds)
        message = f"a deadline of {deadline} is longer than the stale_after of {stale_after}"
        yield ("deadline", "stale_after"), message


def _without(value: strict_yaml.Value, paths: list[strict_yaml.Path]) -> strict_yaml.Value:
    """The document less what is out of shape, with stand-ins for what an account must have."""
    if not isinstance(value, dict):
        return None
    pruned = copy.deepcopy(value)
    for path in paths:
        parent: Any = pruned
        for part in path[:-1]:
            parent = parent[part]
        last = path[-1]
        if isinstance(parent, list):
            parent[int(last)] = {"name": f"stand-in-{last}", "sid": "stand-in"}
        elif path[0] == "accounts" and path[2:] in (("name",), ("sid",)):
            parent[last] = f"stand-in-{path[1]}"
        else:
            parent.pop(last, None)
    return pruned


def _shown_path(path: str) -> str:
    """A path for a message, unless it may be the secret itself."""
    return strict_yaml.shown(path) if set(path) & set("/.\\") else "the file named here"


def _first(own: Any, common: Any, default: Any) -> Any:
    """The account's own value, else the common one, else the default."""
    if own is not None:
        return own
    return default if common is None else common
