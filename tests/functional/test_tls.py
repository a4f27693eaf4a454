"""TLS of the server, by real handshakes: what it offers, whom it lets in, how it is renewed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pytest
import trustme
import uvloop

from exophone_exporter.server import tls
from exophone_exporter.server.tls import ServerTls, TlsProblem, TlsSettings, allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lib.support import FakeTime

DEADLINE_SECONDS: Final = 10


@dataclass
class Ground:
    """Certificates on disk, the settings that name them, and who made them."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)
    settings: TlsSettings | None = None

    def __post_init__(self) -> None:
        self.renew("server.example")
        self.authority.cert_pem.write_to_path(self.folder / "ca.crt")
        self.settings = TlsSettings(
            cert_file=self.path("server.crt"), key_file=self.path("server.key")
        )

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def renew(self, *names: str) -> None:
        """Put a new certificate and its key in the place of the old ones."""
        made = self.authority.issue_cert(*names)
        for name, pem in (
            ("server.crt", made.cert_chain_pems[0]),
            ("server.key", made.private_key_pem),
        ):
            fresh = self.folder / f"{name}.new"
            pem.write_to_path(fresh)
            fresh.replace(self.folder / name)

    def change(self, **changes: object) -> TlsSettings:
        assert self.settings is not None
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]  # fields of any type
        return self.settings

    def require_clients(self, **changes: object) -> TlsSettings:
        return self.change(
            client_auth_type="RequireAndVerifyClientCert",
            client_ca_file=self.path("ca.crt"),
            **changes,
        )

    def client(self, *names: str, authority: trustme.CA | None = None) -> ssl.SSLContext:
        """A client that trusts the server's authority, with a certificate for `names`, if any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        self.authority.configure_trust(context)
        if names:
            (authority or self.authority).issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


class _Answers(asyncio.Protocol):
    """Says hello to whom the server accepts, and hangs up on all others."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if ServerTls.accepts(transport.get_extra_info("ssl_object")):
            transport.write(b"hello")
            transport.close()
        else:
            transport.abort()


@contextlib.contextmanager
def serving(
    server_tls: ServerTls, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> Iterator[int]:
    """The port of a server with an event loop of its own."""
    loop = loop_of()
    listening = socket.create_server(("127.0.0.1", 0))

    async def start() -> asyncio.AbstractServer:
        return await loop.create_server(_Answers, sock=listening, ssl=server_tls.context)

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        server.close()
        loop.call_later(0.01, loop.stop)  # what aborted connections leave behind is done first

    try:
        yield listening.getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop)
        thread.join(DEADLINE_SECONDS)
        loop.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_of(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Each of the event loops that the server may run on."""
    made: Callable[[], asyncio.AbstractEventLoop] = request.param
    return made


@dataclass
class Met:
    """What a client saw of a server."""

    said: bytes
    names: tuple[str, ...]
    version: str | None
    suite: str
    protocol: str | None


def meet(port: int, client: ssl.SSLContext) -> Met:
    """Shake hands and read to the end; raises what the client would see."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as plain,
        client.wrap_socket(plain) as secure,
    ):
        certificate = secure.getpeercert() or {}
        names = tuple(str(name[1]) for name in certificate.get("subjectAltName", ()))
        suite = secure.cipher()
        said = secure.recv(100)
        return Met(
            said,
            names,
            secure.version(),
            suite[0] if suite else "",
            secure.selected_alpn_protocol(),
        )


def is_refused(port: int, client: ssl.SSLContext) -> bool:
    """Whether the server ends the connection before it says anything."""
    try:
        return meet(port, client).said == b""
    except (ssl.SSLError, ConnectionError):
        return True


def open_files() -> int:
    """How many files and sockets this process holds open."""
    return len(list(Path("/dev/fd").iterdir()))


def both_sides(settings: TlsSettings, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; the server's side of it. Raises the error of whoever fails first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = tls.build(settings).wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    for side in (theirs, ours) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ours


# ---- what is offered


def test_the_certificate_and_http_1_1_are_offered(
    ground: Ground, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """TLS 1.3, and HTTP/1.1 to a client that would speak HTTP/2 as well."""
    client = ground.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with serving(ServerTls(lambda: ground.settings), loop_of) as port:
        assert meet(port, client) == Met(
            b"hello", ("server.example",), "TLSv1.3", "TLS_AES_256_GCM_SHA384", "http/1.1"
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


@pytest.mark.parametrize(
    ("changes", "client_max", "version"),
    [
        pytest.param({}, ssl.TLSVersion.TLSv1_2, "TLSv1.2", id="client-without-1.3"),
        pytest.param(
            {"max_version": "TLS12"}, ssl.TLSVersion.TLSv1_3, "TLSv1.2", id="server-without-1.3"
        ),
        pytest.param(
            {"min_version": "TLS13"}, ssl.TLSVersion.TLSv1_3, "TLSv1.3", id="server-of-1.3-alone"
        ),
        pytest.param(
            {"min_version": "TLS13"}, ssl.TLSVersion.TLSv1_2, None, id="nothing-in-common"
        ),
        pytest.param(
            {"cipher_suites": ("TLS_AES_128_GCM_SHA256",)},
            ssl.TLSVersion.TLSv1_2,
            None,
            id="suites-of-1.3-alone",
        ),
    ],
)
def test_versions_are_those_of_the_settings(
    ground: Ground, changes: dict[str, object], client_max: ssl.TLSVersion, version: str | None
) -> None:
    """Each end is honoured."""
    client = ground.client()
    client.maximum_version = client_max
    settings = ground.change(**changes)
    if version is None:
        with pytest.raises(ssl.SSLError):
            both_sides(settings, client)
    else:
        assert both_sides(settings, client).version() == version


AES_128, AES_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
SUITES = ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")


@pytest.mark.parametrize(
    ("changes", "client_suites", "chosen"),
    [
        pytest.param({"cipher_suites": SUITES}, f"{AES_256}:{AES_128}", AES_128, id="server-order"),
        pytest.param(
            {"cipher_suites": SUITES[::-1]}, f"{AES_128}:{AES_256}", AES_256, id="server-reversed"
        ),
        pytest.param(
            {"cipher_suites": SUITES, "prefer_server_cipher_suites": False},
            f"{AES_256}:{AES_128}",
            AES_256,
            id="client-order",
        ),
        pytest.param({"cipher_suites": SUITES[:1]}, AES_256, None, id="none-in-common"),
        pytest.param({}, AES_256, AES_256, id="any"),
        pytest.param({}, "DHE:RSA:!ECDHE", None, id="without-forward-secrecy-or-curve"),
    ],
)
def test_suites_are_those_of_the_settings(
    ground: Ground, changes: dict[str, object], client_suites: str, chosen: str | None
) -> None:
    """In the order of the side that prefers."""
    client = ground.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(client_suites)
    settings = ground.change(**changes)
    if chosen is None:
        with pytest.raises(ssl.SSLError):
            both_sides(settings, client)
    else:
        suite = both_sides(settings, client).cipher()
        assert suite is not None
        assert suite[0] == chosen


@pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
def test_one_curve_is_the_only_one(ground: Ground, curve: str) -> None:
    """A client with another cannot shake hands, and one with the same can."""
    settings = ground.change(curve=curve)
    names = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}
    same, other = ground.client(), ground.client()
    same.set_ecdh_curve(names.get(curve, "X25519"))
    other.set_ecdh_curve("secp384r1" if curve != "CurveP384" else "secp521r1")
    assert both_sides(settings, same).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        both_sides(settings, other)


def test_a_certificate_and_key_may_stand_in_the_settings(ground: Ground) -> None:
    """Nothing of them comes onto the disk."""
    texts = {name: Path(ground.path(f"server.{name}")).read_text() for name in ("crt", "key")}
    inline = ground.change(cert_file="", key_file="", cert=texts["crt"], key=texts["key"])
    before = open_files()
    assert both_sides(inline, ground.client()).version() == "TLSv1.3"
    assert open_files() == before
    mixed = replace(inline, cert="", cert_file=ground.path("server.crt"))
    assert both_sides(mixed, ground.client()).version() == "TLSv1.3"


def test_a_text_longer_than_a_pipe_is_refused_not_waited_for(ground: Ground) -> None:
    """The process does not hang at its start."""
    long = "-----BEGIN CERTIFICATE-----\n" + "x" * 2_000_000
    with pytest.raises(TlsProblem, match="too long to stand here"):
        tls.build(ground.change(cert_file="", cert=long))


# ---- who is let in


@pytest.mark.parametrize(
    ("mode", "nobody", "known", "stranger"),
    [
        pytest.param("NoClientCert", True, True, True, id="no-certificates"),
        pytest.param("VerifyClientCertIfGiven", True, True, False, id="verified-if-given"),
        pytest.param("RequireAndVerifyClientCert", False, True, False, id="required"),
    ],
)
def test_clients_are_let_in_by_their_certificates(
    ground: Ground,
    loop_of: Callable[[], asyncio.AbstractEventLoop],
    *,
    mode: str,
    nobody: bool,
    known: bool,
    stranger: bool,
) -> None:
    """None, one of the authority that is trusted, one of an authority that is not."""
    ca_file = "" if mode == "NoClientCert" else ground.path("ca.crt")
    ground.change(client_auth_type=mode, client_ca_file=ca_file)
    with serving(ServerTls(lambda: ground.settings), loop_of) as port:
        assert is_refused(port, ground.client()) is not nobody
        assert is_refused(port, ground.client("prometheus.example")) is not known
        other = ground.client("prometheus.example", authority=trustme.CA())
        assert is_refused(port, other) is not stranger


def test_a_client_ca_may_stand_in_the_settings(ground: Ground) -> None:
    """The same as in a file."""
    text = Path(ground.path("ca.crt")).read_text()
    settings = ground.require_clients(client_ca=text)
    inline = replace(settings, client_ca_file="")
    assert both_sides(inline, ground.client("prometheus.example")).getpeercert()
    with pytest.raises(ssl.SSLError):
        both_sides(inline, ground.client("prometheus.example", authority=trustme.CA()))


def test_a_certificate_that_is_trusted_itself_needs_no_authority(ground: Ground) -> None:
    """As in Go: the file may hold the client's own certificate, or an intermediate one."""
    made = ground.authority.issue_cert("prometheus.example")
    made.cert_chain_pems[0].write_to_path(ground.path("client.crt"))
    client = ground.client()
    made.configure_cert(client)
    settings = replace(ground.require_clients(), client_ca_file=ground.path("client.crt"))
    assert both_sides(settings, client).getpeercert()


def test_without_a_client_ca_only_those_of_the_system_are_trusted(ground: Ground) -> None:
    """As in Go; a certificate of our own making is not."""
    settings = replace(ground.require_clients(), client_ca_file="")
    with pytest.raises(ssl.SSLError):
        both_sides(settings, ground.client("prometheus.example"))


def test_only_a_certificate_with_an_allowed_name_is_accepted(
    ground: Ground, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Of several authorities' clients, those that are named."""
    ground.require_clients(client_allowed_sans=("one.example", "192.0.2.7"))
    with serving(ServerTls(lambda: ground.settings), loop_of) as port:
        assert meet(port, ground.client("two.example", "one.example")).said == b"hello"
        assert meet(port, ground.client("192.0.2.7")).said == b"hello"
        assert is_refused(port, ground.client("two.example"))
        assert is_refused(port, ground.client("sub.one.example"))


def test_names_without_a_certificate_let_nobody_in(
    ground: Ground, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A client that shows nothing has no allowed name, though certificates are optional."""
    ground.require_clients(client_allowed_sans=("one.example",))
    ground.change(client_auth_type="VerifyClientCertIfGiven")
    with serving(ServerTls(lambda: ground.settings), loop_of) as port:
        assert is_refused(port, ground.client())
        assert not is_refused(port, ground.client("one.example"))


@pytest.mark.parametrize(
    ("names", "san", "expected"),
    [
        pytest.param((("DNS", "one.example"),), "one.example", True, id="dns"),
        pytest.param((("DNS", "ONE.example"),), "one.example", False, id="exactly"),
        pytest.param((("DNS", "*.example"),), "one.example", False, id="wildcard-is-a-text"),
        pytest.param((("email", "a@example"),), "a@example", True, id="email"),
        pytest.param((("URI", "spiffe://a/b"),), "spiffe://a/b", True, id="uri"),
        pytest.param((("IP Address", "192.0.2.7"),), "192.0.2.7", True, id="ipv4"),
        pytest.param((("IP Address", "2001:DB8:0:0:0:0:0:1"),), "2001:db8::1", True, id="ipv6"),
        pytest.param(
            (("IP Address", "2001:DB8:0:0:0:0:0:1\n"),), "2001:db8::1", True, id="newline"
        ),
        pytest.param((("IP Address", "0:0:0:0:0:FFFF:C000:207"),), "192.0.2.7", True, id="mapped"),
        pytest.param((("IP Address", "<invalid>"),), "<invalid>", False, id="no-address"),
        pytest.param((("Registered ID", "1.2.3"),), "1.2.3", False, id="other-kind"),
        pytest.param((("DNS", "a"), ("DNS", "b")), "b", True, id="any-of-them"),
        pytest.param((), "", False, id="no-names"),
    ],
)
def test_a_name_is_compared_as_go_compares_it(
    names: tuple[tuple[str, str], ...], san: str, *, expected: bool
) -> None:
    """Exactly, whatever its kind; the subject does not count."""
    certificate = {"subject": ((("commonName", san),),), "subjectAltName": names}
    assert allowed(certificate, [san]) is expected
    assert not allowed({}, [san])
    assert not allowed(certificate, [])


# ---- what is renewed while the process runs


def test_a_renewed_certificate_is_shown_to_new_connections(
    ground: Ground, time: FakeTime, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A second later at the latest, and without a restart."""
    with serving(ServerTls(lambda: ground.settings, clock=time.clock), loop_of) as port:
        assert meet(port, ground.client()).names == ("server.example",)
        ground.renew("renewed.example")
        assert meet(port, ground.client()).names == ("server.example",)
        time.pass_(1)
        assert meet(port, ground.client()).names == ("renewed.example",)


def test_a_renewed_client_authority_takes_the_place_of_the_old_one(
    ground: Ground, time: FakeTime, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The clients of the old one are let in no longer."""
    ground.require_clients()
    other = trustme.CA()
    with serving(ServerTls(lambda: ground.settings, clock=time.clock), loop_of) as port:
        assert not is_refused(port, ground.client("prometheus.example"))
        other.cert_pem.write_to_path(ground.path("ca.crt"))
        time.pass_(1)
        assert is_refused(port, ground.client("prometheus.example"))
        assert not is_refused(port, ground.client("prometheus.example", authority=other))


def test_changed_settings_hold_for_new_connections(
    ground: Ground, time: FakeTime, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """All of them: who must show a certificate, which names, which versions."""
    plain = ground.client()
    old = ground.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(ServerTls(lambda: ground.settings, clock=time.clock), loop_of) as port:
        assert not is_refused(port, plain)
        ground.require_clients(client_allowed_sans=("one.example",))
        time.pass_(1)
        assert is_refused(port, plain)
        assert is_refused(port, ground.client("two.example"))
        assert not is_refused(port, ground.client("one.example"))
        ground.change(
            client_auth_type="NoClientCert",
            client_ca_file="",
            client_allowed_sans=None,
            min_version="TLS13",
        )
        time.pass_(1)
        assert not is_refused(port, plain)
        assert is_refused(port, old)
        ground.change(min_version="TLS12")
        time.pass_(1)
        assert not is_refused(port, old)


def test_a_bad_renewal_keeps_the_last_good_one_and_is_told_once(
    ground: Ground,
    time: FakeTime,
    loop_of: Callable[[], asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A key that comes a little after its certificate is nothing worse than a line in the log."""
    server_tls = ServerTls(lambda: ground.settings, clock=time.clock)
    key = ground.folder / "server.key"
    with serving(server_tls, loop_of) as port:
        made = ground.authority.issue_cert("renewed.example")
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
    logged = [getattr(record, "fields", {}).get("problem") for record in caplog.records]
    assert [problem for problem in logged if problem] == [
        "key_file: is not the key of the certificate in cert_file",
        f"key_file: `{key}` cannot be read: No such file or directory",
    ]


def test_tls_that_is_taken_out_of_the_file_goes_on(
    ground: Ground, time: FakeTime, loop_of: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A listener that fell back to plain HTTP would show passwords to the network."""
    with serving(ServerTls(lambda: ground.settings, clock=time.clock), loop_of) as port:
        ground.settings = None
        time.pass_(1)
        assert meet(port, ground.client()).said == b"hello"


def test_tls_that_cannot_be_used_at_the_start_is_an_error(ground: Ground) -> None:
    """A process that starts has the TLS it was told to have."""
    Path(ground.path("server.key")).unlink()
    with pytest.raises(TlsProblem, match="cannot be read: No such file"):
        ServerTls(lambda: ground.settings)
    with pytest.raises(ValueError, match="no TLS is configured"):
        ServerTls(lambda: None)


def test_plain_sockets_get_the_renewed_certificate_too(ground: Ground, time: FakeTime) -> None:
    """Whoever takes the context gets what is in force, by either of its two ways."""
    context = ServerTls(lambda: ground.settings, clock=time.clock).context
    ground.renew("renewed.example")
    time.pass_(1)
    ours, theirs = socket.socketpair()

    def shake() -> None:
        with context.wrap_socket(ours, server_side=True) as secure:
            secure.send(b"hello")

    thread = threading.Thread(target=shake)
    thread.start()
    with ground.client().wrap_socket(theirs) as secure:
        certificate = secure.getpeercert() or {}
        assert certificate["subjectAltName"] == (("DNS", "renewed.example"),)
        assert secure.recv(5) == b"hello"
    thread.join(DEADLINE_SECONDS)
