"""The file of `--web.config.file`, in exporter-toolkit's own format.

It becomes one frozen `WebConfig`, or every problem at once in lines like those of the main
configuration. What exporter-toolkit offers and this server cannot keep is refused with a reason.
"""

from __future__ import annotations

import difflib
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from exophone_exporter.clock import Clock
from exophone_exporter.config import strict_yaml
from exophone_exporter.config.files import ReadFile, read_file, read_text
from exophone_exporter.config.problems import ProblemList, read_document
from exophone_exporter.config.strict_yaml import shown
from exophone_exporter.errors import ConfigError
from exophone_exporter.logs import fields
from exophone_exporter.server import tls
from exophone_exporter.server.tls import TlsSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# 22 characters of salt, the last of which holds two bits only, and 31 of the hash itself.
_BCRYPT: Final = re.compile(
    r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII
)
_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_SECTIONS: Final = ("tls_server_config", "http_server_config", "rate_limit", "basic_auth_users")
_TLS_TEXTS: Final = ("cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file")
_TLS_LISTS: Final = ("client_allowed_sans", "cipher_suites", "curve_preferences")
_TLS_KEYS: Final = (
    *_TLS_TEXTS,
    *_TLS_LISTS,
    "client_auth_type",
    "min_version",
    "max_version",
    "prefer_server_cipher_suites",
)
_TRUE: Final = ("y", "yes", "true", "on")
_FALSE: Final = ("n", "no", "false", "off")
_OLD_VERSIONS: Final = ("TLS10", "TLS11")
_UNVERIFIED: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
# Without one of these Go does not speak HTTP/2, and exporter-toolkit does not start.
_SUITES_OF_HTTP2: Final = (
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
)
_CHECK_SECONDS: Final = 1.0
_A_MAPPING: Final = "a mapping of keys to values belongs here"
_A_LIST: Final = "a list belongs here: lines that begin with `- `"

_log = logging.getLogger(__name__)


class PasswordHash:
    """A bcrypt hash, which no repr, log or error shows."""

    __slots__ = ("encoded",)

    def __init__(self, text: str) -> None:
        self.encoded: Final = text.encode("ascii")

    @property
    def cost(self) -> str:
        """The two digits that say how long a check takes: each more doubles the time."""
        return self.encoded[4:6].decode("ascii")

    def __repr__(self) -> str:
        return "<hash>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PasswordHash) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __reduce__(self) -> Any:
        raise TypeError("a password hash is not copied out of the process")


@dataclass(frozen=True)
class WebConfig:
    """Who may connect and how.

    `tls` is None for plain HTTP. `headers` stand in every answer. No `users` is everybody.
    """

    tls: TlsSettings | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    users: Mapping[str, PasswordHash] = field(default_factory=lambda: MappingProxyType({}))


def load(path: str, read_file: ReadFile = read_file) -> WebConfig:
    """Read a file, and the certificates and keys that it names; raises ConfigError."""
    text = read_text(path, read_file)
    loaded = parse(text, path)
    found = tls.problems(loaded.tls) if loaded.tls else []
    if found:
        told = ProblemList(path, strict_yaml.parse(text).lines)
        for problem in found:
            told.note(("tls_server_config", problem.setting), problem.message)
        raise told.error()
    return loaded


def parse(text: str, source: str) -> WebConfig:
    """Read the text of a file; opens no other. Raises ConfigError with every problem, by line.

    `source` is the file's path: it stands in errors, and paths in the text are relative to its
    folder. An empty file is plain HTTP for everybody.
    """
    document = read_document(text, source)
    return _Build(source, document.lines).web_config(document.value)


class WebConfigFile:
    """A file that is read again when it changes, looked at no more than once a second.

    A version that cannot be used is logged once, and the last that could stays in force. Raises
    ConfigError when the first one cannot. To be used from one thread.
    """

    def __init__(
        self, path: str, *, clock: Clock | None = None, read_file: ReadFile = read_file
    ) -> None:
        self._path = path
        self._clock = clock or Clock()
        self._read_file = read_file
        self._stamp = tls.stamp(path)  # before the content: a change in between is seen later
        self._in_force = load(path, read_file)
        self._check_at = self._clock.monotonic() + _CHECK_SECONDS

    def current(self) -> WebConfig:
        """What is in force now."""
        now = self._clock.monotonic()
        if now >= self._check_at:
            self._check_at = now + _CHECK_SECONDS
            stamp = tls.stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
        return self._in_force

    def _renew(self) -> None:
        try:
            renewed = parse(read_text(self._path, self._read_file), self._path)
        except ConfigError as error:
            problems = " | ".join(error.problems)
            _log.error("web configuration refused; the last stays", extra=fields(problem=problems))
            return
        if (renewed.tls is None) != (self._in_force.tls is None):
            _log.warning("TLS is switched on and off by a restart only; the rest is in force")
        self._in_force = renewed
        _log.info("web configuration renewed", extra=fields(file=self._path))


class _Build:
    """Checks one document, collecting every problem on the way."""

    def __init__(self, source: str, lines: Mapping[strict_yaml.Path, int]) -> None:
        self._source = source
        self._problems = ProblemList(source, lines)
        self.note = self._problems.note

    def web_config(self, value: strict_yaml.Value) -> WebConfig:
        file = self._mapping((), value, _SECTIONS)
        http = self._mapping(
            ("http_server_config",), file.get("http_server_config"), ("http2", "headers")
        )
        http2 = self._boolean(("http_server_config", "http2"), http.get("http2"), default=True)
        result = WebConfig(
            self._tls(file.get("tls_server_config"), http2=http2),
            MappingProxyType(self._headers(http.get("headers"))),
            MappingProxyType(self._users(file.get("basic_auth_users"))),
        )
        self._rate_limit(file.get("rate_limit"))
        if self._problems:
            raise self._problems.error()
        return result

    def _mapping(
        self, path: strict_yaml.Path, value: strict_yaml.Value, known: Iterable[str] | None
    ) -> dict[str, strict_yaml.Value]:
        """A mapping of known keys, or of any; nothing at all is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.note(path, _A_MAPPING)
            return {}
        if known is None:
            return value
        for key in value:
            if key not in known:
                self.note((*path, key), f"unknown key; {_advice(key, known)}")
        return {key: inner for key, inner in value.items() if key in known}

    def _word(self, path: strict_yaml.Path, value: strict_yaml.Value) -> str:
        if isinstance(value, list | dict):
            self.note(path, "holds a list or a mapping where one value belongs")
            return ""
        return value or ""

    def _boolean(self, path: strict_yaml.Path, value: strict_yaml.Value, *, default: bool) -> bool:
        if value is None:
            return default
        word = self._word(path, value)
        if word.lower() not in (*_TRUE, *_FALSE) and not isinstance(value, list | dict):
            self.note(path, f"`{shown(word)}` is not true or false")
        return word.lower() in _TRUE

    def _words(self, path: strict_yaml.Path, value: strict_yaml.Value) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.note(path, _A_LIST)
            return ()
        return tuple(self._word((*path, index), word) for index, word in enumerate(value))

    # ---- tls_server_config

    def _tls(self, value: strict_yaml.Value, *, http2: bool) -> TlsSettings | None:
        path = ("tls_server_config",)
        section = self._mapping(path, value, _TLS_KEYS)
        if not any(inner not in (None, "") for inner in section.values()):
            return None
        before = len(self._problems)
        texts = {key: self._word((*path, key), section.get(key)) for key in _TLS_TEXTS}
        self._check_sources(path, section, texts)
        for key in ("cert_file", "key_file", "client_ca_file"):
            if texts[key]:
                texts[key] = str(Path(self._source).parent / texts[key])
        client = self._client_auth_type(path, section, texts)
        suites = self._suites(path, section, http2=http2)
        curve = self._curve(path, section)
        least, most = self._versions(path, section, suites)
        prefer = self._boolean(
            (*path, "prefer_server_cipher_suites"),
            section.get("prefer_server_cipher_suites"),
            default=True,
        )
        sans = section.get("client_allowed_sans")
        names = self._words((*path, "client_allowed_sans"), sans)
        if len(self._problems) > before:
            return None
        return TlsSettings(
            **texts,
            client_auth_type=client,
            client_allowed_sans=None if sans is None else names,
            min_version=least,
            max_version=most,
            cipher_suites=suites,
            prefer_server_cipher_suites=prefer,
            curve=curve,
        )

    def _check_sources(
        self,
        path: strict_yaml.Path,
        section: Mapping[str, strict_yaml.Value],
        texts: Mapping[str, str],
    ) -> None:
        for name in ("cert", "key", "client_ca"):
            file = f"{name}_file"
            if texts[name] and texts[file]:
                self.note((*path, name), f"stands beside `{file}`; keep one of them")
            elif name != "client_ca" and not section.get(name) and not section.get(file):
                at = next((key for key in (file, name) if key in section), "")
                self.note((*path, at) if at else path, f"give one of `{file}` and `{name}`")

    def _client_auth_type(
        self,
        path: strict_yaml.Path,
        section: Mapping[str, strict_yaml.Value],
        texts: Mapping[str, str],
    ) -> str:
        here = (*path, "client_auth_type")
        word = self._word(here, section.get("client_auth_type")) or "NoClientCert"
        if word in _UNVERIFIED:
            self.note(
                here,
                f"`{word}` lets certificates in that nobody verified, which this server cannot;"
                " use RequireAndVerifyClientCert with client_ca_file",
            )
        elif word not in tls.VERIFY_MODES:
            self.note(here, f"`{shown(word)}` is not one of {', '.join(tls.VERIFY_MODES)}")
        elif word == "NoClientCert":
            for key in ("client_ca_file", "client_ca", "client_allowed_sans"):
                if texts.get(key) or (key not in texts and section.get(key) is not None):
                    self.note(
                        (*path, key),
                        "has no effect without client_auth_type: RequireAndVerifyClientCert",
                    )
        return word

    def _suites(
        self, path: strict_yaml.Path, section: Mapping[str, strict_yaml.Value], *, http2: bool
    ) -> tuple[str, ...]:
        here = (*path, "cipher_suites")
        suites = self._words(here, section.get("cipher_suites"))
        known = (*tls.SUITES, *tls.SUITES_OF_TLS13)
        for index, suite in enumerate(suites):
            if suite not in known:
                self.note((*here, index), _unknown("cipher suite", suite, known))
        wanted = suites and http2 and section.get("min_version") != "TLS13"
        if wanted and not set(suites) & set(_SUITES_OF_HTTP2):
            self.note(
                here,
                f"holds neither {' nor '.join(_SUITES_OF_HTTP2)}, without which exporter-toolkit"
                " does not start; add one, or set `http2: false` in http_server_config",
            )
        return suites

    def _curve(self, path: strict_yaml.Path, section: Mapping[str, strict_yaml.Value]) -> str:
        here = (*path, "curve_preferences")
        curves = self._words(here, section.get("curve_preferences"))
        for index, curve in enumerate(curves):
            if curve not in tls.CURVES:
                self.note((*here, index), _unknown("curve", curve, tls.CURVES))
        if len(curves) > 1:
            self.note(
                here,
                "Python's TLS can be given one curve only; keep one, or leave the list out for all",
            )
        return curves[0] if curves else ""

    def _versions(
        self,
        path: strict_yaml.Path,
        section: Mapping[str, strict_yaml.Value],
        suites: tuple[str, ...],
    ) -> tuple[str, str]:
        least = self._version((*path, "min_version"), section.get("min_version"), "TLS12")
        most = self._version((*path, "max_version"), section.get("max_version"), "TLS13")
        if (least, most) == ("TLS13", "TLS12"):
            self.note((*path, "max_version"), "is below min_version; nobody could connect")
        elif most == "TLS12" and suites and not set(suites) & set(tls.SUITES):
            self.note(
                (*path, "cipher_suites"),
                "holds suites of TLS 1.3 only and max_version is TLS12; nobody could connect",
            )
        return least, most

    def _version(self, path: strict_yaml.Path, value: strict_yaml.Value, default: str) -> str:
        if value is None:
            return default
        word = self._word(path, value)
        if word in _OLD_VERSIONS:
            self.note(path, f"`{word}` is broken and not offered; use TLS12 or TLS13")
        elif word not in tls.VERSIONS and isinstance(value, str):
            self.note(path, f"`{shown(word)}` is not one of TLS12, TLS13")
        return word

    # ---- the rest

    def _headers(self, value: strict_yaml.Value) -> dict[str, str]:
        path = ("http_server_config", "headers")
        given = self._mapping(path, value, _HEADERS)
        headers = {name: self._header((*path, name), inner) for name, inner in given.items()}
        return {name: text for name, text in headers.items() if text}

    def _header(self, path: strict_yaml.Path, value: strict_yaml.Value) -> str:
        """The value as Go would send it: on one line."""
        text = " ".join(self._word(path, value).splitlines()).strip()
        words = _HEADERS[str(path[-1])]
        if words and text not in words:
            self.note(path, f"`{shown(text)}` is not one of {', '.join(words)}")
        if not text.isprintable():
            self.note(path, "holds a control character")
        return text

    def _users(self, value: strict_yaml.Value) -> dict[str, PasswordHash]:
        given = self._mapping(("basic_auth_users",), value, None)
        users = {name: self._user(name, inner) for name, inner in given.items()}
        return {name: stored for name, stored in users.items() if stored is not None}

    def _user(self, name: str, value: strict_yaml.Value) -> PasswordHash | None:
        path = ("basic_auth_users", name)
        if ":" in name:
            self.note(path, "a name with a colon cannot log in: HTTP Basic ends the name there")
            return None
        if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
            # Not shown: it may be the password.
            self.note(
                path,
                "is not a bcrypt hash ($2a$, $2b$ or $2y$); make one with `htpasswd -nBC 10 USER`",
            )
            return None
        return PasswordHash(value)

    def _rate_limit(self, value: strict_yaml.Value) -> None:
        path = ("rate_limit",)
        section = self._mapping(path, value, ("interval", "burst"))
        interval = self._word((*path, "interval"), section.get("interval"))
        if re.fullmatch(r"(0(ns|us|µs|ms|s|m|h)?)?", interval) is None:
            self.note(
                (*path, "interval"),
                "this server has no limit by time; leave rate_limit out and use"
                " --web.max-requests, which bounds the requests in flight",
            )
        burst = self._word((*path, "burst"), section.get("burst"))
        if re.fullmatch(r"(-?[0-9]+)?", burst, re.ASCII) is None:
            self.note((*path, "burst"), f"`{shown(burst)}` is not a whole number")


def _unknown(kind: str, word: str, known: Iterable[str]) -> str:
    return f"`{shown(word)}` is not a {kind} that is offered; {_advice(word, known)}"


def _advice(word: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(word, names, 1)
    return f"did you mean `{near[0]}`?" if near else f"known are {', '.join(names)}"
