"""The server's side of TLS: settings become a context, made again when their files change."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from exophone_exporter.clock import Clock
from exophone_exporter.config.files import reason_of
from exophone_exporter.errors import ConfigError
from exophone_exporter.logs import fields
from exophone_exporter.server.followed_files import FollowedFiles, fingerprint, read_regular_file
from exophone_exporter.server.tls_settings import (
    CURVES,
    SUITES,
    VERIFY_MODES,
    VERSIONS,
    TlsSettings,
)

_PEM_KINDS: Final = {"cert": "CERTIFICATE", "key": "PRIVATE KEY", "client_ca": "CERTIFICATE"}
PEM_FILE_MAX_BYTES: Final = 1024 * 1024
_PREFERRED_BY_OPENSSL: Final = (CURVES["X25519"].number, CURVES["CurveP256"].number)
# Behind the classical groups: combinations with ML-KEM, and numbers without a meaning.
_FIRST_NEW_GROUP: Final = 0x200
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL.
_NO_CHECK_TIME: Final = 0x200000
# Every handshake fails in it before a key is computed, because it has no certificate.
_REFUSING: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

_log = logging.getLogger(__name__)


class TlsProblem(ConfigError):  # noqa: N818 - a problem of one setting
    """Settings that make no context; `setting` is the one at fault. Never holds a key."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__([f"{setting}: {message}"])
        self.setting = setting
        self.message = message


@dataclass(frozen=True)
class Tls:
    """TLS for new connections.

    `limited` has, by the number of each group and in order of preference, a context that offers it
    alone: an `SSLContext` can be limited to one group, but not to several, and in Python 3.11.2 not
    to X25519 (None). `unlimited` offers all that OpenSSL does. `has_tls13` is whether TLS 1.3 is
    allowed. With `allowed_sans` a client's certificate must have one of them. `expires_at` is when
    the certificate does, in seconds since 1970.
    """

    limited: Mapping[int, ssl.SSLContext | None]
    unlimited: ssl.SSLContext | None = None
    has_tls13: bool = True
    allowed_sans: tuple[str, ...] | None = None
    expires_at: float | None = None

    def context_for(self, groups: Sequence[int], key_shares: Sequence[int]) -> ssl.SSLContext:
        """The context of the first group that the client sent a key for, or else supports.

        Without a common group the handshake fails, but costs nothing.
        """
        shares = key_shares if self.has_tls13 else ()
        for offered in (shares, groups):
            for group in self.limited:
                if group in offered and (context := self._context_of(group, shares)):
                    return context
        return next(filter(None, self.limited.values()), None) or _REFUSING

    def _context_of(self, group: int, shares: Sequence[int]) -> ssl.SSLContext | None:
        """A context that chooses the group, None without one.

        An unlimited one takes the first key that OpenSSL knows. TLS 1.2 has no keys in its hello,
        and a client's certificate must be of a curve that the context offers.
        """
        limited = self.limited[group]
        if limited is None:
            known = [share for share in shares if share < _FIRST_NEW_GROUP]
            return self.unlimited if known[:1] in ([], [group]) else None
        if not shares and group in _PREFERRED_BY_OPENSSL:
            return self.unlimited or limited
        return limited

    def accepts(self, connection: ssl.SSLObject) -> bool:
        """Whether to serve the client of a connection; valid after the handshake."""
        sans = self.allowed_sans
        return sans is None or allowed(connection.getpeercert() or {}, sans)


def allowed(peer_certificate: Mapping[str, object], sans: Iterable[str]) -> bool:
    """Whether a client's certificate, as `getpeercert` gives it, has one of the names exactly.

    As in Go: DNS names, e-mail addresses, URIs as written, IP addresses in their shortest form.
    """
    return not set(sans).isdisjoint(_names(peer_certificate))


def _names(peer_certificate: Mapping[str, object]) -> Iterator[str]:
    names: Any = peer_certificate.get("subjectAltName", ())
    for kind, name in names:
        if kind in ("DNS", "email", "URI"):
            yield name
        elif kind == "IP Address":
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(name.strip())
                yield str(getattr(address, "ipv4_mapped", None) or address)


def build(settings: TlsSettings) -> Tls:
    """Make the contexts from settings and their files; raises TlsProblem."""
    limited: dict[int, ssl.SSLContext | None] = {}
    for curve in settings.curve_preferences or CURVES:
        context = _context(settings)
        limited[CURVES[curve].number] = context if _limit(context, curve) else None
    needs_unlimited = not settings.curve_preferences or None in limited.values()
    return Tls(
        limited,
        _context(settings) if needs_unlimited else None,
        settings.max_version != "TLS12",
        settings.client_allowed_sans,
        _expires_at(settings),
    )


def _context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    # HTTP/2 is not supported; a client that supports both learns it in the handshake.
    context.set_alpn_protocols(["http/1.1"])
    context.maximum_version = VERSIONS[settings.max_version]
    context.minimum_version = VERSIONS[settings.min_version]
    _choose_ciphers(context, settings)
    _load_certificate(context, settings)
    _verify_clients(context, settings)
    return context


def follow(
    settings: Callable[[], TlsSettings | None], first: TlsSettings, clock: Clock
) -> FollowedFiles[Tls]:
    """TLS by the settings of the moment and their files, for new connections.

    `first` stays in force where the settings are removed: TLS ends only with the listener.
    """
    latest = first

    def current() -> TlsSettings:
        nonlocal latest
        latest = settings() or latest
        return latest

    def log_renewal(*_: Tls) -> None:
        _log.info("TLS renewed", extra=fields(files=" ".join(latest.files)))

    return FollowedFiles(
        lambda: (current(), *map(fingerprint, latest.files)),
        lambda: build(latest),
        failure="reloading TLS certificates failed; keeping the previous ones",
        accept=log_renewal,
        clock=clock,
    )


def problems(settings: TlsSettings) -> Iterator[TlsProblem]:
    """What is wrong with each file and text, and with them together; some problems come twice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    given = [
        name for name in _PEM_KINDS if getattr(settings, name) or getattr(settings, f"{name}_file")
    ]
    checks: list[Callable[[], object]] = [
        *(partial(_checked_pem, settings, name) for name in given),
        *(partial(_limit, context, curve) for curve in settings.curve_preferences),
        partial(_verify_clients, context, settings),
    ]
    if {"cert", "key"}.issubset(given):
        checks.append(partial(_load_certificate, context, settings))
    for check in checks:
        try:
            check()
        except TlsProblem as problem:
            yield problem


def _choose_ciphers(context: ssl.SSLContext, settings: TlsSettings) -> None:
    chosen = settings.cipher_suites or tuple(SUITES)
    names = [SUITES[name] for name in chosen if name in SUITES]
    if names:
        context.set_ciphers(":".join(names))
    else:  # only suites of TLS 1.3 were chosen
        context.minimum_version = ssl.TLSVersion.TLSv1_3


def _limit(context: ssl.SSLContext, curve: str) -> bool:
    """Offer one curve only; False where Python 3.11.2, which Debian 12 has, cannot do it."""
    try:
        context.set_ecdh_curve(CURVES[curve].name)
    except (ssl.SSLError, ValueError):
        if curve != "X25519":
            raise TlsProblem("curve_preferences", f"OpenSSL does not support `{curve}`") from None
        return False
    return True


def _expires_at(settings: TlsSettings) -> float | None:
    """When the certificate expires, by a handshake in memory: `ssl` decodes only a peer's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(server, settings)
    client = _trusting_client(settings)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (asking, serving, asking):
        with contextlib.suppress(ssl.SSLError):
            end.do_handshake()
    try:
        certificate: Any = asking.getpeercert()
    except ValueError:  # not a certificate for a server
        return None
    return ssl.cert_time_to_seconds(certificate["notAfter"])


def _trusting_client(settings: TlsSettings) -> ssl.SSLContext:
    """A client that accepts the certificate, expired or not; raises OSError if it is unreadable."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    with _path(settings, "cert") as path:
        client.load_verify_locations(path)
    return client


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    cert_setting = _checked_pem(settings, "cert")
    key_setting = _checked_pem(settings, "key")
    with _path(settings, "cert") as cert, _path(settings, "key") as key:
        try:
            context.load_cert_chain(cert, key, password="")  # or OpenSSL asks at the terminal
        except OSError as error:  # an SSLError is one
            reason = getattr(error, "reason", None) or ""
        else:
            return
    if reason == "KEY_VALUES_MISMATCH":
        raise TlsProblem(key_setting, f"is not the key of the certificate in {cert_setting}")
    try:
        _trusting_client(settings)
    except OSError:
        raise TlsProblem(cert_setting, "holds a certificate that cannot be read") from None
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        raise TlsProblem(cert_setting, "holds a certificate too weak to be used; make a new one")
    raise TlsProblem(key_setting, "holds a key that cannot be read")


def _checked_pem(settings: TlsSettings, name: str) -> str:
    """The setting that holds a PEM text, inline or in a file; raises TlsProblem."""
    kind, file = _PEM_KINDS[name], getattr(settings, f"{name}_file")
    setting = f"{name}_file" if file else name
    try:
        content = read_regular_file(file, PEM_FILE_MAX_BYTES) if file else b""
    except (OSError, ValueError) as error:
        raise TlsProblem(setting, f"`{file}` {reason_of(error)}") from None
    text = content.decode("utf-8", "replace") or getattr(settings, name)
    if f"{kind}-----" not in text:
        raise TlsProblem(setting, f"holds no PEM text with `BEGIN {kind}`")
    if name == "key" and "ENCRYPTED" in text:
        raise TlsProblem(setting, "is encrypted; only a key without a passphrase is supported")
    return setting


@contextlib.contextmanager
def _path(settings: TlsSettings, name: str) -> Iterator[str]:
    """A path for OpenSSL, which reads only files; a text goes through a pipe, never to disk."""
    if file := getattr(settings, f"{name}_file"):
        yield file
        return
    content = getattr(settings, name).encode()
    reading, writing = os.pipe()
    try:
        with open(writing, "wb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor, not a path
            os.set_blocking(writing, False)
            if pipe.write(content) != len(content):
                raise TlsProblem("cert", "or `key` is too long; use a file")
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


def _verify_clients(context: ssl.SSLContext, settings: TlsSettings) -> None:
    context.verify_mode = VERIFY_MODES[settings.client_auth_type]
    if context.verify_mode == ssl.CERT_NONE:
        return
    # As in Go, every certificate in the file is trusted, not only self-signed ones.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not settings.client_ca_file and not settings.client_ca:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    setting = _checked_pem(settings, "client_ca")
    try:
        with _path(settings, "client_ca") as path:
            context.load_verify_locations(path)
    except OSError:  # an SSLError is one
        raise TlsProblem(setting, "holds no certificate that can be read") from None
