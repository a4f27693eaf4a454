"""TLS as the server offers it: settings become a context, and the context follows its files.

Names of suites, curves and versions are those of exporter-toolkit, which are Go's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exophone_exporter.clock import Clock
from exophone_exporter.config.files import read_file
from exophone_exporter.logs import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PEM_FILE_MAX_BYTES: Final = 1024 * 1024
VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
VERIFY_MODES: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# In the order in which Go prefers them; what it calls insecure is not among them.
SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
# Always offered with TLS 1.3, in Go as in OpenSSL; a list may name them and changes nothing.
SUITES_OF_TLS13: Final = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_SAN_KINDS: Final = ("DNS", "email", "URI")
_CHECK_SECONDS: Final = 1.0

Stamp = tuple[int, int, int] | None

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsSettings:
    """What `tls_server_config` says, checked; names as they stand there.

    Of `cert` and `cert_file`, and of `key` and `key_file`, exactly one is not empty. No `suites` is
    all of them, no `curve` OpenSSL's choice. `client_allowed_sans` is None for any.
    """

    cert: str = field(default="", repr=False)
    cert_file: str = ""
    key: str = field(default="", repr=False)
    key_file: str = ""
    client_ca: str = field(default="", repr=False)
    client_ca_file: str = ""
    client_auth_type: str = "NoClientCert"
    client_allowed_sans: tuple[str, ...] | None = None
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it names."""
        return tuple(file for file in (self.cert_file, self.key_file, self.client_ca_file) if file)


class TlsProblem(Exception):  # noqa: N818 - a problem of one setting, not yet an error of the file
    """Settings that make no context; `setting` is the one at fault. Never holds a key."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}")
        self.setting = setting
        self.message = message


def stamp(path: str) -> Stamp:
    """What tells one version of a file from the next; None for a file that is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path would be made once a second for nothing
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def allowed(peer_certificate: Mapping[str, object], sans: Iterable[str]) -> bool:
    """Whether a client's certificate, as `getpeercert` gives it, has one of the names exactly.

    As in Go: DNS names, e-mail addresses, URIs as written, IP addresses in their shortest form.
    """
    return not set(sans).isdisjoint(_names(peer_certificate))


def _names(peer_certificate: Mapping[str, object]) -> Iterator[str]:
    names = peer_certificate.get("subjectAltName", ())
    if not isinstance(names, tuple):
        return
    for kind, name in names:
        if kind in _SAN_KINDS:
            yield name
        elif kind == "IP Address":
            with contextlib.suppress(ValueError):
                yield _short(name.strip())


def _short(text: str) -> str:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


class _Context(ssl.SSLContext):
    """A context that knows which names of clients its connections allow."""

    allowed_sans: tuple[str, ...] | None = None


def build(settings: TlsSettings) -> ssl.SSLContext:
    """The context that settings and their files make; raises TlsProblem."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.allowed_sans = settings.client_allowed_sans
    context.options |= ssl.OP_NO_RENEGOTIATION
    # HTTP/2 is not spoken: a client that knows both is told so in the handshake.
    context.set_alpn_protocols(["http/1.1"])
    context.maximum_version = VERSIONS[settings.max_version]
    context.minimum_version = VERSIONS[settings.min_version]
    _choose_ciphers(context, settings)
    if settings.curve:
        context.set_ecdh_curve(CURVES[settings.curve])
    _load_certificate(context, settings)
    _ask_clients(context, settings)
    return context


def problems(settings: TlsSettings) -> list[TlsProblem]:
    """Each file that cannot be read, else what is wrong with what they hold; for a person."""
    found = []
    for setting in ("cert_file", "key_file", "client_ca_file"):
        try:
            _text(setting, getattr(settings, setting) or os.devnull)
        except TlsProblem as problem:
            found.append(problem)
    if not found:
        try:
            build(settings)
        except TlsProblem as problem:
            found.append(problem)
    return found


def _choose_ciphers(context: ssl.SSLContext, settings: TlsSettings) -> None:
    chosen = settings.cipher_suites or tuple(SUITES)
    names = [SUITES[name] for name in chosen if name in SUITES]
    if names:
        context.set_ciphers(":".join(names))
    else:  # suites of TLS 1.3 alone leave nothing to speak 1.2 with
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not settings.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    cert_setting = "cert_file" if settings.cert_file else "cert"
    key_setting = "key_file" if settings.key_file else "key"
    _check_pem(
        cert_setting, settings.cert or _text(cert_setting, settings.cert_file), "CERTIFICATE"
    )
    _check_pem(key_setting, settings.key or _text(key_setting, settings.key_file), "PRIVATE KEY")
    asked = []

    def passphrase() -> str:
        asked.append(True)  # OpenSSL would ask at the terminal
        return ""

    with (
        _path(settings.cert_file, settings.cert) as cert,
        _path(settings.key_file, settings.key) as key,
    ):
        try:
            context.load_cert_chain(cert, key, password=passphrase)
        except OSError as error:  # an SSLError is one
            reason = getattr(error, "reason", None) or ""
        else:
            return
    if asked:
        raise TlsProblem(key_setting, "is encrypted; only a key without a passphrase can be used")
    raise _unfit(settings, reason, cert_setting, key_setting)


def _unfit(settings: TlsSettings, reason: str, cert_setting: str, key_setting: str) -> TlsProblem:
    """What was wrong with a certificate and its key, of which OpenSSL says little."""
    if reason == "KEY_VALUES_MISMATCH":
        return TlsProblem(key_setting, f"is not the key of the certificate in {cert_setting}")
    if not _is_certificate(settings):
        return TlsProblem(cert_setting, "holds a certificate that cannot be read")
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        return TlsProblem(cert_setting, "holds a certificate too weak to be used; make a new one")
    return TlsProblem(key_setting, "holds a key that cannot be read")


def _text(setting: str, path: str) -> str:
    try:
        return read_file(path, PEM_FILE_MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise TlsProblem(setting, f"`{path}` cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TlsProblem(setting, f"`{path}` {error}") from None


def _check_pem(setting: str, text: str, kind: str) -> None:
    if f"{kind}-----" not in text:
        raise TlsProblem(setting, f"holds no PEM text with `BEGIN {kind}`")


@contextlib.contextmanager
def _path(file: str, text: str) -> Iterator[str]:
    """A path under which OpenSSL, which reads files only, finds a text; it touches no disk."""
    if file:
        yield file
        return
    reading, writing = os.pipe()
    try:
        with open(writing, "wb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor, not a path
            os.set_blocking(writing, False)
            if pipe.write(text.encode()) != len(text.encode()):
                raise TlsProblem("cert", "or `key` is too long to stand here; name a file")
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


def _is_certificate(settings: TlsSettings) -> bool:
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with _path(settings.cert_file, settings.cert) as path:
            probe.load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _ask_clients(context: ssl.SSLContext, settings: TlsSettings) -> None:
    context.verify_mode = VERIFY_MODES[settings.client_auth_type]
    if context.verify_mode == ssl.CERT_NONE:
        return
    # As in Go, every certificate that is given is trusted, also one that another has signed.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    setting = "client_ca_file" if settings.client_ca_file else "client_ca"
    if settings.client_ca_file:
        _check_pem(setting, _text(setting, settings.client_ca_file), "CERTIFICATE")
    elif not settings.client_ca:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    try:
        with _path(settings.client_ca_file, settings.client_ca) as path:
            context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise TlsProblem(setting, "holds no certificate that can be read") from None


class ServerTls:
    """The TLS of a server that runs: `context` gives every new connection what is in force now.

    The settings, and the files they name, are looked at when a connection comes, at most once a
    second. What cannot be used is logged once, and the last that could stays in force. Raises
    TlsProblem for settings that cannot be used at the start.
    """

    def __init__(
        self, current: Callable[[], TlsSettings | None], *, clock: Clock | None = None
    ) -> None:
        self._current = current
        self._clock = clock or Clock()
        self._settings = current()
        if self._settings is None:
            raise ValueError("no TLS is configured")
        self._stamps = _stamps(self._settings)
        self._in_force = build(self._settings)
        self._check_at = self._clock.monotonic() + _CHECK_SECONDS
        self.context: ssl.SSLContext = _Following(self._latest)

    @staticmethod
    def accepts(connection: ssl.SSLObject | ssl.SSLSocket) -> bool:
        """Whether the client of a connection may stay: its certificate has an allowed name.

        To be asked after the handshake, before the first byte is read.
        """
        sans = connection.context.allowed_sans if isinstance(connection.context, _Context) else None
        return sans is None or allowed(connection.getpeercert() or {}, sans)

    def _latest(self) -> ssl.SSLContext:
        now = self._clock.monotonic()
        if now >= self._check_at:
            self._check_at = now + _CHECK_SECONDS
            self._follow(self._current())
        return self._in_force

    def _follow(self, settings: TlsSettings | None) -> None:
        if settings is None:  # the listener speaks TLS until it ends
            return
        stamps = _stamps(settings)
        if settings == self._settings and stamps == self._stamps:
            return
        self._settings, self._stamps = settings, stamps
        try:
            self._in_force = build(settings)
        except TlsProblem as problem:
            _log.error("TLS cannot be renewed; the last stays", extra=fields(problem=str(problem)))
        else:
            _log.info("TLS renewed", extra=fields(files=" ".join(settings.files)))


def _stamps(settings: TlsSettings) -> tuple[Stamp, ...]:
    return tuple(stamp(file) for file in settings.files)


class _Following(ssl.SSLContext):
    """Hands each connection to the context of the moment.

    A context cannot forget a client CA, and one that is exchanged in the handshake (by the callback
    for server names) does not take its rules for clients and versions along. asyncio and uvloop
    make a connection's TLS by `wrap_bio`: there a whole context is still open to choice.
    """

    _latest: Callable[[], ssl.SSLContext]

    def __new__(cls, latest: Callable[[], ssl.SSLContext]) -> _Following:  # noqa: PYI034 - not to be derived from
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._latest = latest
        return self

    def wrap_bio(self, *args: object, **options: object) -> ssl.SSLObject:
        return self._latest().wrap_bio(*args, **options)  # type: ignore[arg-type]  # handed on

    def wrap_socket(self, *args: object, **options: object) -> ssl.SSLSocket:
        return self._latest().wrap_socket(*args, **options)  # type: ignore[arg-type]  # likewise
