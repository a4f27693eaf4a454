"""TLS of the server, by real handshakes: what it offers, which clients it accepts, renewal."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exophone_exporter.server import tls, tls_settings
from exophone_exporter.server.client_hello import HelloReader, Offer
from exophone_exporter.server.followed_files import FollowedFiles
from exophone_exporter.server.refusals import RefusedClients
from exophone_exporter.server.tls import TlsProblem, allowed
from exophone_exporter.server.tls_settings import TlsSettings
from tests.lib.processes import DEADLINE_SECONDS, wait_until
from tests.lib.servers import port_of, rest_of, running_app
from tests.lib.support import FakeTime


class Ground:
    """Certificates on disk, the settings that name them, and their authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.renew("server.example")
        self.authority.cert_pem.write_to_path(self.folder / "ca.crt")
        self.settings: TlsSettings | None = TlsSettings(
            cert_file=self.path("server.crt"), key_file=self.path("server.key")
        )

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def renew(self, *names: str, **options: Any) -> None:
        """Replace the certificate and its key."""
        made = self.authority.issue_cert(*names, **options)
        for name, pem in (
            ("server.crt", made.cert_chain_pems[0]),
            ("server.key", made.private_key_pem),
        ):
            new = self.folder / f"{name}.new"
            pem.write_to_path(new)
            new.replace(self.folder / name)

    def change(self, **changes: object) -> TlsSettings:
        assert self.settings is not None
        self.settings = self.settings.model_copy(update=changes)
        return self.settings

    def require_clients(self, **changes: object) -> TlsSettings:
        files = {"client_ca_file": self.path("ca.crt"), **changes}
        return self.change(client_auth_type="RequireAndVerifyClientCert", **files)

    def client(self, *names: str, authority: trustme.CA | None = None) -> ssl.SSLContext:
        """A client that trusts the server's authority, with a certificate for `names`, if any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        self.authority.configure_trust(context)
        if names:
            (authority or self.authority).issue_cert(*names).configure_cert(context)
        return context

    def follow(self, time: FakeTime) -> FollowedFiles[tls.Tls]:
        assert self.settings is not None
        return tls.follow(lambda: self.settings, self.settings, time.clock)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


async def scheme(scope: Any, _: Any, send: Any) -> None:
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@contextlib.contextmanager
def serving(ground: Ground, time: FakeTime) -> Iterator[int]:
    """The port of a server that follows the settings and files."""
    with running_app(scheme, tls=ground.follow(time).current) as server:
        yield port_of(server)


@dataclass
class Met:
    """What a client saw of a server."""

    said: bytes
    names: tuple[str, ...]
    version: str | None
    suite: str
    protocol: str | None


def meet(port: int, client: ssl.SSLContext) -> Met:
    """Shake hands and read an answer; raises what the client would see."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as plain,
        client.wrap_socket(plain) as secure,
    ):
        certificate = secure.getpeercert() or {}
        names = tuple(str(name[1]) for name in certificate.get("subjectAltName", ()))
        secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = rest_of(secure)[-5:]
        suite = secure.cipher()
        protocol = secure.selected_alpn_protocol()
        return Met(said, names, secure.version(), suite[0] if suite else "", protocol)


def is_refused(port: int, client: ssl.SSLContext) -> bool:
    """Whether the client gets no answer of the application."""
    try:
        return meet(port, client).said != b"https"
    except (ssl.SSLError, ConnectionError):
        return True


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def both_sides(settings: TlsSettings, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; the server's side of it. Raises the error of the first to fail."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server)
    with contextlib.suppress(ssl.SSLWantReadError):
        theirs.do_handshake()
    sent = to_server.read()
    to_server.write(sent)
    offer = HelloReader().feed(sent)
    assert offer
    context = tls.build(settings).context_for(*offer)
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ours


# ---- what is offered


def test_the_certificate_and_http_1_1_are_offered(ground: Ground, time: FakeTime) -> None:
    """TLS 1.3, and HTTP/1.1 to a client that would speak HTTP/2 as well."""
    client = ground.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with serving(ground, time) as port:
        assert meet(port, client) == Met(
            b"https", ("server.example",), "TLSv1.3", "TLS_AES_256_GCM_SHA384", "http/1.1"
        )


def test_tls_1_1_is_never_spoken(ground: Ground) -> None:
    """Whatever a client would accept."""
    client = ground.client()
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|unsupported protocol"):
        both_sides(ground.change(), client)


AES_128, AES_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
SUITES = ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")


@pytest.mark.parametrize(
    ("changes", "with_tls13", "client_suites", "agreed"),
    [
        ({}, False, AES_256, ("TLSv1.2", AES_256)),
        ({"max_version": "TLS12"}, True, AES_256, ("TLSv1.2", AES_256)),
        ({"min_version": "TLS13"}, True, AES_256, ("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        ({"min_version": "TLS13"}, False, AES_256, None),
        ({"cipher_suites": ("TLS_AES_128_GCM_SHA256",)}, False, AES_256, None),
        ({"cipher_suites": SUITES}, False, f"{AES_256}:{AES_128}", ("TLSv1.2", AES_128)),
        ({"cipher_suites": SUITES[::-1]}, False, f"{AES_128}:{AES_256}", ("TLSv1.2", AES_256)),
        ({"cipher_suites": SUITES[:1]}, False, AES_256, None),
        ({}, False, "DHE:RSA:!ECDHE", None),  # without forward secrecy or without a curve
    ],
)
def test_versions_and_suites_are_those_of_the_settings_in_the_servers_order(
    ground: Ground,
    changes: dict[str, object],
    *,
    with_tls13: bool,
    client_suites: str,
    agreed: tuple[str, str] | None,
) -> None:
    client = ground.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_3 if with_tls13 else ssl.TLSVersion.TLSv1_2
    client.set_ciphers(client_suites)
    settings = ground.change(**changes)
    if agreed is None:
        with pytest.raises(ssl.SSLError):
            both_sides(settings, client)
        return
    server = both_sides(settings, client)
    assert (server.version(), (server.cipher() or [""])[0]) == agreed


@pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
def test_one_curve_is_the_only_one(ground: Ground, curve: str) -> None:
    """A client with another curve cannot shake hands, one with the same can."""
    settings = ground.change(curve_preferences=(curve,))
    same, other = ground.client(), ground.client()
    try:
        same.set_ecdh_curve(tls_settings.CURVES[curve].name)
    except ssl.SSLError:
        pytest.skip("this Python cannot choose the curve; the next test shows what happens then")
    other.set_ecdh_curve("secp384r1" if curve != "CurveP384" else "secp521r1")
    assert both_sides(settings, same).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        both_sides(settings, other)


X25519, P256, P384, P521 = (curve.number for curve in tls_settings.CURVES.values())
X448, FFDHE8192, WITH_ML_KEM = 0x1E, 0x104, 0x11EC
ALL = (X25519, P256, P384, P521, X448, FFDHE8192, WITH_ML_KEM)


def chosen(built: tls.Tls, offer: Offer) -> str:
    """What the context offers: one curve, all of OpenSSL, or nothing."""
    context = built.context_for(*offer)
    if context is built.unlimited:
        return "unlimited"
    names = {
        id(built.limited[curve.number]): name
        for name, curve in tls_settings.CURVES.items()
        if curve.number in built.limited
    }
    return names.get(id(context), "nothing")


@pytest.mark.fault(191)
@pytest.mark.parametrize(
    ("preferences", "offered", "expected"),
    [
        ((), (ALL, (X25519,)), "X25519"),
        ((), (ALL, (WITH_ML_KEM, X25519)), "X25519"),
        ((), (ALL, (FFDHE8192, X448, P521, P384)), "CurveP384"),
        ((), (ALL, (FFDHE8192,)), "X25519"),
        ((), ((FFDHE8192, P521), ()), "CurveP521"),
        ((), ((X448, FFDHE8192), (X448,)), "X25519"),  # which fails
        ((), ((), ()), "X25519"),
        (("CurveP384", "CurveP256"), (ALL, (P256, P384)), "CurveP384"),
        (("CurveP384", "CurveP256"), (ALL, (P256,)), "CurveP256"),
        (("CurveP256",), ((X25519,), (X25519,)), "CurveP256"),
    ],
)
def test_the_server_chooses_the_curve(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    preferences: tuple[str, ...],
    offered: tuple[tuple[int, ...], tuple[int, ...]],
    expected: str,
) -> None:
    """By its preference, among those that the client sent a key for, else among all of them."""
    monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", lambda *_: None)  # not in 3.11.2
    built = tls.build(ground.change(curve_preferences=preferences))
    assert chosen(built, offered) == expected


@pytest.mark.fault(191)
@pytest.mark.parametrize(
    ("groups", "shares", "expected"),
    [
        ((P256, X25519, X448), (), "unlimited"),
        ((P256, X25519, X448), (X448,), "unlimited"),  # for TLS 1.3, which is not spoken
        ((X448, P521, P384), (), "CurveP384"),
        ((X448,), (), "X25519"),
    ],
)
def test_with_tls_1_2_every_curve_of_a_certificate_is_right(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    groups: tuple[int, ...],
    shares: tuple[int, ...],
    expected: str,
) -> None:
    """Where OpenSSL by itself chooses X25519 or P-256 for the key exchange."""
    monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", lambda *_: None)
    built = tls.build(ground.change(max_version="TLS12"))
    assert chosen(built, (groups, shares)) == expected


@pytest.mark.fault(191)
@pytest.mark.parametrize(
    ("preferences", "shares", "expected"),
    [
        ((), (X25519, FFDHE8192), "unlimited"),
        ((), (WITH_ML_KEM, X25519), "unlimited"),
        ((), (FFDHE8192, X25519), "CurveP256"),
        (("X25519",), (), "unlimited"),
        (("X25519",), (P256, X25519), "nothing"),
    ],
)
def test_x25519_is_chosen_by_its_place_where_python_cannot_choose_it(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    preferences: tuple[str, ...],
    shares: tuple[int, ...],
    expected: str,
) -> None:
    """Python 3.11.2, which Debian 12 has. OpenSSL takes the first key that it knows."""
    limit = ssl.SSLContext.set_ecdh_curve

    def set_ecdh_curve(context: ssl.SSLContext, name: str) -> None:
        if name == "X25519":
            raise ssl.SSLError("[EC: UNKNOWN_GROUP] unknown group")
        limit(context, name)

    monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", set_ecdh_curve)
    built = tls.build(ground.change(curve_preferences=preferences))
    assert chosen(built, (ALL, shares)) == expected


def test_a_curve_that_openssl_does_not_have_is_refused(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_ecdh_curve(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", set_ecdh_curve)
    with pytest.raises(
        TlsProblem, match=r"^curve_preferences: OpenSSL does not support `CurveP256`$"
    ):
        tls.build(ground.change(curve_preferences=("CurveP256",)))


def test_certificates_and_keys_may_be_set_inline(ground: Ground) -> None:
    """Nothing of them comes onto the disk."""
    texts = {name: Path(ground.path(f"server.{name}")).read_text() for name in ("crt", "key")}
    ca = Path(ground.path("ca.crt")).read_text()
    clients = ground.require_clients(client_ca=ca, client_ca_file="")
    inline = ground.change(cert_file="", key_file="", cert=texts["crt"], key=texts["key"])
    mixed = inline.model_copy(update={"cert": "", "cert_file": ground.path("server.crt")})
    before = open_files()
    for settings in (clients, inline, mixed):
        assert both_sides(settings, ground.client("prometheus.example")).getpeercert()
        with pytest.raises(ssl.SSLError):
            both_sides(settings, ground.client("prometheus.example", authority=trustme.CA()))
    assert open_files() == before


def test_a_text_longer_than_a_pipe_is_refused_not_waited_for(ground: Ground) -> None:
    """The process does not hang at its start."""
    long = "-----BEGIN CERTIFICATE-----\n" + "x" * 2_000_000
    with pytest.raises(TlsProblem, match="too long; use a file"):
        tls.build(ground.change(cert_file="", cert=long))


# ---- which clients are accepted


@pytest.mark.parametrize(
    ("mode", "nobody", "known", "stranger"),
    [
        ("NoClientCert", True, True, True),
        ("VerifyClientCertIfGiven", True, True, False),
        ("RequireAndVerifyClientCert", False, True, False),
    ],
)
def test_clients_are_let_in_by_their_certificates(
    ground: Ground,
    time: FakeTime,
    *,
    mode: str,
    nobody: bool,
    known: bool,
    stranger: bool,
) -> None:
    """None, one of the authority that is trusted, one of an authority that is not."""
    ca_file = "" if mode == "NoClientCert" else ground.path("ca.crt")
    ground.change(client_auth_type=mode, client_ca_file=ca_file)
    other = trustme.CA()
    with serving(ground, time) as port:
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            for names, authority, is_let_in in (
                ((), None, nobody),
                (("prometheus.example",), None, known),
                (("prometheus.example",), other, stranger),
            ):
                client = ground.client(*names, authority=authority)
                client.maximum_version = version
                assert is_refused(port, client) is not is_let_in


def test_a_certificate_that_is_trusted_itself_needs_no_authority(ground: Ground) -> None:
    """As in Go: the file may hold the client's own certificate, or an intermediate one."""
    made = ground.authority.issue_cert("prometheus.example")
    made.cert_chain_pems[0].write_to_path(ground.path("client.crt"))
    client = ground.client()
    made.configure_cert(client)
    settings = ground.require_clients(client_ca_file=ground.path("client.crt"))
    assert both_sides(settings, client).getpeercert()


def test_without_a_client_ca_only_those_of_the_system_are_trusted(ground: Ground) -> None:
    """As in Go; a certificate of our own making is not."""
    settings = ground.require_clients(client_ca_file="")
    with pytest.raises(ssl.SSLError):
        both_sides(settings, ground.client("prometheus.example"))


def refusal(port: int, client: ssl.SSLContext) -> str:
    """What the client gets: the alert, or an answer in words."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as plain:
        try:
            with client.wrap_socket(plain) as secure:
                secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return secure.recv(100).split(b"\r\n")[0].decode()
        except ssl.SSLError as error:
            return str(error.reason).lower().replace("_", " ")


@pytest.mark.fault(192)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_is_told_why_its_certificate_is_refused_and_so_is_the_operator(
    ground: Ground, time: FakeTime, caplog: pytest.LogCaptureFixture, version: ssl.TLSVersion
) -> None:
    ground.require_clients(client_allowed_sans=("prometheus.example",))
    expired, past = ground.client(), datetime(2020, 1, 1, tzinfo=UTC)
    ground.authority.issue_cert("prometheus.example", not_after=past).configure_cert(expired)
    required = "certificate required" if version is ssl.TLSVersion.TLSv1_3 else "handshake failure"
    refused = RefusedClients(time.clock)
    with running_app(scheme, tls=ground.follow(time).current, refused_clients=refused) as server:
        for client, alert, detail in (
            (ground.client(), required, "peer did not return a certificate"),
            (
                ground.client("prometheus.example", authority=trustme.CA()),
                "unknown ca",
                "unable to get local issuer certificate",
            ),
            (expired, "certificate expired", "certificate has expired"),
            (ground.client("other.example"), "403 Forbidden", "none of its names is allowed"),
        ):
            client.maximum_version = version
            with caplog.at_level(logging.INFO, "exophone_exporter.server.refusals"):
                caplog.clear()
                assert refusal(port_of(server), client).endswith(alert)
            (line,) = [each for each in caplog.records if each.msg == "client refused"]
            assert vars(line)["fields"] == {
                "reason": "client_certificate",
                "client": "127.0.0.1",
                "count": 1,
                "detail": detail,
            }
            time.pass_(60)
    assert refused.counts()["client_certificate"] == 4


def hello_from(*flags: str) -> bytes:
    """The hello of `openssl s_client`, which knows more groups than a client in Python."""
    program = shutil.which("openssl") or "true"
    if b"OpenSSL 3" not in subprocess.check_output([program, "version"]):
        pytest.skip("needs the program of OpenSSL 3")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE_SECONDS)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with subprocess.Popen(
            [program, "s_client", "-connect", address, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            accepted, _ = listening.accept()
            with accepted, accepted.makefile("rb") as received:
                header = received.read(5)
                return header + received.read(int.from_bytes(header[3:]))


HANDSHAKE_FAILURE, PROTOCOL_VERSION = 40, 70


@pytest.mark.fault(191)
@pytest.mark.fault(192)
@pytest.mark.parametrize(
    ("flags", "alert"),
    [
        ("-tls1_3 -groups ffdhe8192", HANDSHAKE_FAILURE),
        ("-tls1_3 -groups X448:ffdhe2048", HANDSHAKE_FAILURE),
        ("-tls1_2 -groups X448", HANDSHAKE_FAILURE),
        ("-tls1_2 -cipher AES128-SHA256", HANDSHAKE_FAILURE),
        ("-tls1_1 -cipher ALL@SECLEVEL=0", PROTOCOL_VERSION),
    ],
)
def test_a_client_that_offers_nothing_right_gets_an_alert(
    ground: Ground, time: FakeTime, flags: str, alert: int
) -> None:
    """And no key is computed: a hello of 1 KiB with one for ffdhe8192 would take 0.2 seconds."""
    sent = hello_from(*flags.split())
    with running_app(scheme, tls=ground.follow(time).current) as server:
        with socket.create_connection(
            ("127.0.0.1", port_of(server)), timeout=DEADLINE_SECONDS
        ) as client:
            client.sendall(sent)
            answer = rest_of(client)
        assert (answer[:2], answer[3:]) == (b"\x15\x03", bytes([0, 2, 2, alert]))
        assert server.refused_clients.counts()["tls_handshake"] == 1


@pytest.mark.fault(192)
def test_garbage_after_the_handshake_gets_an_alert(ground: Ground, time: FakeTime) -> None:
    with (
        running_app(scheme, tls=ground.follow(time).current) as server,
        socket.create_connection(("127.0.0.1", port_of(server)), DEADLINE_SECONDS) as plain,
        ground.client().wrap_socket(plain) as secure,
        socket.socket(fileno=os.dup(secure.fileno())) as unencrypted,
    ):
        unencrypted.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            secure.recv(1)
        assert server.refused_clients.counts()["malformed_request"] == 1


@pytest.mark.parametrize(
    ("names", "san", "expected"),
    [
        ([("DNS", "one.example")], "one.example", True),
        ([("DNS", "ONE.example")], "one.example", False),
        ([("DNS", "*.example")], "one.example", False),
        ([("email", "a@example")], "a@example", True),
        ([("URI", "spiffe://a/b")], "spiffe://a/b", True),
        ([("IP Address", "192.0.2.7")], "192.0.2.7", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1")], "2001:db8::1", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1\n")], "2001:db8::1", True),
        ([("IP Address", "0:0:0:0:0:FFFF:C000:207")], "192.0.2.7", True),
        ([("IP Address", "<invalid>")], "<invalid>", False),
        ([("Registered ID", "1.2.3")], "1.2.3", False),
        ([("DNS", "a"), ("DNS", "b")], "b", True),
        ([], "", False),
    ],
)
def test_a_name_is_compared_as_go_compares_it(
    names: list[tuple[str, str]], san: str, *, expected: bool
) -> None:
    """Exactly, whatever its kind; the subject does not count."""
    certificate = {"subject": ((("commonName", san),),), "subjectAltName": tuple(names)}
    assert allowed(certificate, [san]) is expected
    assert not allowed({}, [san])
    assert not allowed(certificate, [])


# ---- renewal


def test_renewed_certificates_are_used_for_new_connections(ground: Ground, time: FakeTime) -> None:
    """A second later at the latest; clients of a removed authority are refused."""
    ground.require_clients()
    other = trustme.CA()
    client = ground.client("prometheus.example")
    with serving(ground, time) as port:
        assert meet(port, client).names == ("server.example",)
        ground.renew("renewed.example")
        assert meet(port, client).names == ("server.example",)
        time.pass_(1)
        assert meet(port, client).names == ("renewed.example",)
        other.cert_pem.write_to_path(ground.path("ca.crt"))
        time.pass_(1)
        assert is_refused(port, client)
        assert not is_refused(port, ground.client("prometheus.example", authority=other))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_but_not_when_its_authority_is_no_longer_trusted(
    ground: Ground, time: FakeTime, version: ssl.TLSVersion
) -> None:
    ground.require_clients(client_allowed_sans=("prometheus.example",))
    client = ground.client("prometheus.example")
    client.maximum_version = version
    session = None

    def is_resumed(port: int) -> bool | None:
        """Also keeps the session; raises if the client is refused."""
        nonlocal session
        with (
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as plain,
            client.wrap_socket(plain, session=session) as secure,
        ):
            secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert rest_of(secure).endswith(b"https")
            session = secure.session
            return secure.session_reused

    with serving(ground, time) as port:
        assert [is_resumed(port) for _ in range(3)] == [False, True, True]
        trustme.CA().cert_pem.write_to_path(ground.path("ca.crt"))
        time.pass_(1)
        with pytest.raises((AssertionError, ssl.SSLError)):
            is_resumed(port)


def test_changed_settings_hold_for_new_connections(ground: Ground, time: FakeTime) -> None:
    """All of them: client certificates, names, versions. But TLS is not switched off."""
    plain, old = ground.client(), ground.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(ground, time) as port:
        assert not is_refused(port, plain)
        ground.require_clients(client_allowed_sans=("one.example", "192.0.2.7"))
        for mode in ("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"):
            ground.change(client_auth_type=mode)
            time.pass_(1)
            assert is_refused(port, plain)
            assert is_refused(port, ground.client("two.example", "sub.one.example"))
            assert not is_refused(port, ground.client("two.example", "one.example"))
            assert not is_refused(port, ground.client("192.0.2.7"))
        ground.settings = TlsSettings(
            cert_file=ground.path("server.crt"),
            key_file=ground.path("server.key"),
            min_version="TLS13",
        )
        time.pass_(1)
        assert not is_refused(port, plain)
        assert is_refused(port, old)
        ground.settings = None
        time.pass_(1)
        assert not is_refused(port, plain)
        assert is_refused(port, old)


def test_a_failed_renewal_keeps_the_previous_certificate(
    ground: Ground, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure is logged once: a key that comes later, or is missing, or not permitted."""
    key = ground.folder / "server.key"
    made = ground.authority.issue_cert("renewed.example")
    with serving(ground, time) as port:
        made.cert_chain_pems[0].write_to_path(ground.path("server.crt"))
        for _ in range(3):
            time.pass_(1)
            assert meet(port, ground.client()).names == ("server.example",)
        made.private_key_pem.write_to_path(key)
        time.pass_(1)
        assert meet(port, ground.client()).names == ("renewed.example",)
        key.unlink()
        time.pass_(1)
        assert meet(port, ground.client()).names == ("renewed.example",)
    logged = [(r.getMessage(), vars(r).get("fields", {}).get("problem")) for r in caplog.records]
    failure = "reloading TLS certificates failed; keeping the previous ones"
    assert [pair for pair in logged if pair[1]] == [
        (failure, "key_file: is not the key of the certificate in cert_file"),
        (failure, f"key_file: `{key}` cannot be read: No such file or directory"),
    ]


@pytest.mark.fault(193)
def test_the_expiry_of_the_served_certificate_is_known_and_follows_its_renewal(
    ground: Ground, time: FakeTime
) -> None:
    def renew_until(end: datetime) -> float:
        ground.renew("server.example", not_after=end)
        time.pass_(1)
        return end.timestamp()

    first = renew_until(datetime(2020, 1, 1, tzinfo=UTC))
    with running_app(scheme, tls=ground.follow(time).current) as server:
        wait_until(lambda: server.certificate_expires_at == first, "it has expired")
        second = renew_until(datetime(2040, 2, 3, 4, 5, 6, tzinfo=UTC))
        wait_until(lambda: server.certificate_expires_at == second, "it is renewed")


def test_a_certificate_that_is_only_for_clients_has_no_expiry(ground: Ground) -> None:
    """No client accepts it as a server's, and so it is not decoded."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    begin, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
    certificate = made.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    pems = (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    settings = ground.change(cert_file="", key_file="", cert=pems[0].decode(), key=pems[1].decode())
    assert tls.build(settings).expires_at is None


def test_tls_that_cannot_be_used_at_the_start_is_an_error(ground: Ground, time: FakeTime) -> None:
    Path(ground.path("server.key")).unlink()
    with pytest.raises(TlsProblem, match="cannot be read: No such file"):
        ground.follow(time)
