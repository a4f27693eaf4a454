"""The file of `--web.config.file`, in exporter-toolkit's format.

It becomes one frozen `WebConfig`, or a ConfigError with every problem and its line. Settings of
exporter-toolkit that this server does not support are refused with a reason.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, model_validator

from exophone_exporter.clock import Clock
from exophone_exporter.config import strict_yaml
from exophone_exporter.config.fields import (
    Section,
    checked,
    one_of,
    plain_text,
    quoted,
    refuse,
)
from exophone_exporter.config.files import read_text
from exophone_exporter.config.problems import ProblemList, validate
from exophone_exporter.errors import ConfigError
from exophone_exporter.logs import fields
from exophone_exporter.server import tls
from exophone_exporter.server.followed_files import FollowedFiles, fingerprint, read_regular_file
from exophone_exporter.server.tls_settings import (
    BLANK,
    FILE_SETTINGS,
    VERIFY_MODES,
    TlsSettings,
    WebSection,
    contradictions,
)

# 22 characters of salt, the last of which holds only two bits, and 31 of the hash itself.
_BCRYPT: Final = re.compile(
    r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII
)
_GO_UNIT_SECONDS: Final = {
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs"), 1e-6),
    "ns": 1e-9,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_GO_DURATION_PART: Final = re.compile(
    rf"([0-9]{{1,9}}(?:\.[0-9]{{0,9}})?|\.[0-9]{{1,9}})({'|'.join(_GO_UNIT_SECONDS)})"
)
_GO_DURATION: Final = re.compile(rf"(?:{_GO_DURATION_PART.pattern})+")
_WHOLE_NUMBER: Final = re.compile("(-?[0-9]{1,9})?", re.ASCII)
_LOST: Final = "no longer keeps clients out; only a restart removes protection"
_TLS: Final = "tls_server_config"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class PasswordHash:
    """A bcrypt hash, which no repr, log or error shows."""

    text: str

    def __repr__(self) -> str:
        return "<hash>"

    def __reduce__(self) -> Any:
        raise TypeError("a password hash is not copied out of the process")


def _on_one_line(value: Any) -> str:
    """The value of a header as Go would send it."""
    return " ".join(plain_text(value or "").splitlines()).strip()


def _password_hash(value: Any) -> PasswordHash:
    if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
        # Not shown: it may be the password.
        raise refuse(
            "is not a bcrypt hash ($2a$, $2b$ or $2y$); make one with `htpasswd -nBC 10 USER`"
        )
    return PasswordHash(value)


_Hash = Annotated[InstanceOf[PasswordHash], BeforeValidator(_password_hash)]
_OneLine = Annotated[str, BeforeValidator(_on_one_line)]
_Header = Annotated[
    _OneLine,
    checked(lambda text: text.replace("\t", " ").isprintable(), "holds a control character"),
]


def _go_duration(value: Any) -> float:
    text = plain_text(value)
    if text not in ("", "0") and not _GO_DURATION.fullmatch(text):
        raise refuse(f"{quoted(text)} is not a valid duration; use a value such as 100ms or 1.5s")
    return sum(float(n) * _GO_UNIT_SECONDS[unit] for n, unit in _GO_DURATION_PART.findall(text))


def _whole_number(value: Any) -> int:
    text = plain_text(value)
    if not _WHOLE_NUMBER.fullmatch(text):
        raise refuse(f"{quoted(text)} is not a whole number")
    return int(text or 0)


class _Headers(Section):
    strict_transport_security: _Header = Field("", alias="Strict-Transport-Security")
    x_content_type_options: Annotated[_OneLine, AfterValidator(one_of("nosniff"))] = Field(
        "", alias="X-Content-Type-Options"
    )
    x_frame_options: Annotated[_OneLine, AfterValidator(one_of("deny", "sameorigin"))] = Field(
        "", alias="X-Frame-Options"
    )
    x_xss_protection: _Header = Field("", alias="X-XSS-Protection")
    content_security_policy: _Header = Field("", alias="Content-Security-Policy")


class _Http(WebSection):
    http2: Any = None  # ignored: a client agrees to HTTP/1.1 in the handshake
    headers: _Headers = _Headers()


class RateLimit(WebSection):
    """The section `rate_limit`: a token bucket, in seconds for each request; 0 disables it."""

    interval: Annotated[float, BeforeValidator(_go_duration)] = 0.0
    burst: Annotated[int, BeforeValidator(_whole_number)] = 0

    @model_validator(mode="after")
    def _allow_requests(self) -> RateLimit:
        if self.interval and self.burst < 1:
            raise refuse("needs a `burst` of 1 or more; without one every request would get a 429")
        return self


class _File(WebSection):
    tls_server_config: TlsSettings = TlsSettings()
    http_server_config: _Http = _Http()
    rate_limit: RateLimit = RateLimit()
    basic_auth_users: dict[str, _Hash] = Field(default_factory=dict)


@dataclass(frozen=True)
class WebConfig:
    """Which clients may connect, and how.

    `tls` is None for plain HTTP. `headers` are set in every answer. Without `users` no password is
    required, without `rate_limit` any number of requests is answered.
    """

    tls: TlsSettings | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    users: Mapping[str, PasswordHash] = field(default_factory=lambda: MappingProxyType({}))
    rate_limit: RateLimit | None = None


def check_web_config(path: str, *, with_files: bool = True) -> WebConfig:
    """Read a file, and the certificates and keys that it names; raises ConfigError."""
    return parse(read_text(path, read_regular_file), path, with_files=with_files)


def parse(text: str, source: str, *, with_files: bool = False) -> WebConfig:
    """Read the text of a file. Raises ConfigError with every problem and its line.

    `source` is the file's path, as errors name it; paths in the text are relative to its folder. An
    empty file means plain HTTP without a password. `with_files` checks the files that it names.
    """
    document = strict_yaml.parse(text, source)
    value = {} if document.value is None else document.value
    problems = ProblemList(source, document.lines)
    sections = _mapping(value)
    tls_section = _mapping(sections.get(_TLS))
    for key, message in contradictions(tls_section):
        problems.note((_TLS, key) if key else (_TLS,), message)
    for name in _mapping(sections.get("basic_auth_users")):
        if ":" in name:
            message = "a name with a colon cannot log in: HTTP Basic ends the name there"
            problems.note(("basic_auth_users", name), message)
    file = validate(_File, value, problems)
    if with_files:
        _check_files(tls_section, source, problems)
    if file is None or problems.found:
        raise problems.error()
    headers = file.http_server_config.headers.model_dump(by_alias=True)
    return WebConfig(
        file.tls_server_config.in_folder(Path(source).parent) if _has_tls(tls_section) else None,
        MappingProxyType({name: text for name, text in headers.items() if text}),
        MappingProxyType(dict(file.basic_auth_users)),
        file.rate_limit if file.rate_limit.interval else None,
    )


def _has_tls(section: Mapping[str, strict_yaml.Value]) -> bool:
    return any(value not in BLANK for value in section.values())


def _check_files(
    section: Mapping[str, strict_yaml.Value], source: str, problems: ProblemList
) -> None:
    """Note what is wrong with the files of `tls_server_config`, alone if the section is invalid."""
    is_valid = _has_tls(section) and all(path[:1] != (_TLS,) for path, _ in problems.found)
    files = {key: inner for key in FILE_SETTINGS if isinstance(inner := section.get(key), str)}
    settings = TlsSettings.model_validate(section if is_valid else files)
    found = tls.problems(settings.in_folder(Path(source).parent))
    for setting, message in {each.setting: each.message for each in found}.items():
        problems.note((_TLS, setting), message)


def _mapping(section: strict_yaml.Value) -> Mapping[str, strict_yaml.Value]:
    return section if isinstance(section, dict) else {}


def follow(path: str, clock: Clock) -> FollowedFiles[WebConfig]:
    """The web configuration of the moment; a version that cannot be used changes nothing.

    Nor does one without users or client certificates where the previous one required them: a file
    that was emptied or is half written must not open the exporter.
    """

    def accept(previous: WebConfig, renewed: WebConfig) -> None:
        after = _protection(renewed)
        lost = [key for key, strength in _protection(previous).items() if strength > after[key]]
        if lost:
            raise ConfigError(f"{path}: {key}: {_LOST}" for key in lost)
        if (previous.tls is None) != (renewed.tls is None):
            _log.warning("turning TLS on or off requires a restart; the rest is in force")
        _log.info("web configuration renewed", extra=fields(file=path))

    followed = FollowedFiles(
        lambda: fingerprint(path),
        lambda: parse(read_text(path, read_regular_file), path),
        failure="invalid web configuration; keeping the previous one",
        accept=accept,
        clock=clock,
    )
    first = followed.current()
    if first.tls is None and not first.users:
        _log.warning("the web configuration sets neither TLS nor users", extra=fields(file=path))
    return followed


def _protection(config: WebConfig) -> dict[str, int]:
    """How much each key of the file does to keep clients out."""
    settings = config.tls or TlsSettings()
    return {
        "basic_auth_users": bool(config.users),
        f"{_TLS}.client_auth_type": list(VERIFY_MODES).index(settings.client_auth_type),
        f"{_TLS}.client_ca_file": bool(settings.client_ca_file or settings.client_ca),
        f"{_TLS}.client_allowed_sans": settings.client_allowed_sans is not None,
    }
