"""The file of --web.config.file: what is accepted, what it becomes, how the rest is refused."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import re
import ssl
from pathlib import Path
from types import MappingProxyType

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from exophone_exporter.errors import ConfigError
from exophone_exporter.server import tls_settings, web_config
from exophone_exporter.server.followed_files import FollowedFiles, fingerprint
from exophone_exporter.server.tls_settings import TlsSettings
from exophone_exporter.server.web_config import (
    PasswordHash,
    WebConfig,
    check_web_config,
    follow,
)
from tests.lib.canary import everything_of
from tests.lib.configs import cases, expected_problems, refusal
from tests.lib.paths import DATA, ROOT
from tests.lib.support import FakeTime

CONFIGS = DATA / "web_configs"
HASH = "$2b$04$i5rP5rcN9vQnvv3UGc5P4eHfT2P5hEblJ5ReJT4.asu5VUohTvixG"
CANARIES = ("canary", HASH[7:29], HASH[29:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates that the files name."""
    where = tmp_path_factory.mktemp("web")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(where / "ca.crt")
    for name in ("server", "client"):
        made = authority.issue_cert(f"{name}.example")
        made.cert_chain_pems[0].write_to_path(where / f"{name}.crt")
        made.private_key_pem.write_to_path(where / f"{name}.key")
    key = load_pem_private_key((where / "server.key").read_bytes(), None)
    (where / "encrypted.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary"))
    )
    return where


def placed(source: Path, folder: Path) -> str:
    """The path of a copy next to the certificates, with inline ones put in."""
    content = source.read_bytes()
    for word, file in (("@CERT@", "server.crt"), ("@KEY@", "server.key"), ("@CA@", "ca.crt")):
        indented = "\n    ".join((folder / file).read_text().splitlines())
        content = content.replace(word.encode(), indented.encode())
    path = folder / source.name
    path.write_bytes(content)
    return str(path)


def problems(text: str) -> tuple[str, ...]:
    return refusal(lambda: web_config.parse(text, "FILE")).problems


# ---- what is refused


@pytest.mark.parametrize("source", cases(CONFIGS / "bad"))
def test_a_bad_file_is_refused_with_every_problem_and_no_secret(source: Path, folder: Path) -> None:
    path = placed(source, folder)
    error = refusal(lambda: check_web_config(path))
    shown = tuple(
        problem.replace(path, "FILE").replace(str(folder), "FOLDER") for problem in error.problems
    )
    assert shown == expected_problems(source.read_text("utf-8", "replace"))
    assert not [canary for canary in CANARIES if canary in everything_of(error)]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Nor does a path that leads to something else fill the memory."""
    path = tmp_path / "web.yml"
    gone = refusal(lambda: check_web_config(str(path)))
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    large = refusal(lambda: check_web_config(str(path)))
    assert gone.problems == (f"{path}: cannot be read: No such file or directory",)
    assert large.problems == (f"{path}: is larger than 1024 KiB",)


# ---- what is accepted


@pytest.mark.parametrize("source", cases(CONFIGS / "good"))
def test_a_good_file_is_accepted_with_its_certificates(source: Path, folder: Path) -> None:
    """All that exporter-toolkit's own good files hold, and that can be kept here."""
    check_web_config(placed(source, folder))


def test_the_complete_example_of_the_documents_is_accepted(folder: Path) -> None:
    """On every Python, Debian 12's 3.11.2 included."""
    page = (ROOT / "docs" / "web-config.md").read_text("utf-8")
    text = page.split("```yaml\n")[1].split("```")[0].replace("clients.crt", "ca.crt")
    path = folder / "example.yml"
    path.write_text(re.sub(r"\$2b\$10\$\S+", HASH, text), encoding="utf-8")
    check_web_config(str(path))


@pytest.mark.parametrize(
    "name", ["empty", "only_comments", "empty_sections", "tls_settings_all_blank", "rate_limit_off"]
)
def test_a_file_that_says_nothing_is_plain_http_for_everybody(name: str, folder: Path) -> None:
    """As in exporter-toolkit."""
    text = (CONFIGS / "good" / f"{name}.yml").read_text("utf-8")
    assert web_config.parse(text, str(folder / "web.yml")) == WebConfig(None, {}, {})


def test_every_setting_becomes_what_it_says() -> None:
    """Relative paths are relative to the file's own folder; absolute ones stay."""
    text = (
        "tls_server_config:\n  cert_file: server.crt\n  key_file: /keys/server.key\n"
        "  client_ca_file: ../ca.crt\n  client_auth_type: VerifyClientCertIfGiven\n"
        "  client_allowed_sans: [one, two]\n  min_version: TLS12\n  max_version: TLS12\n"
        "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"
        "  prefer_server_cipher_suites: false\n  curve_preferences: [CurveP256, X25519]\n"
        "http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n"
        "    X-XSS-Protection: 0\n"
        f"basic_auth_users:\n  asha: {HASH}\n"
    )
    assert web_config.parse(text, "/etc/exophone/web.yml") == WebConfig(
        TlsSettings(
            cert_file="/etc/exophone/server.crt",
            key_file="/keys/server.key",
            client_ca_file="/etc/exophone/../ca.crt",
            client_auth_type="VerifyClientCertIfGiven",
            client_allowed_sans=("one", "two"),
            min_version="TLS12",
            max_version="TLS12",
            cipher_suites=("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",),
            prefer_server_cipher_suites="false",
            curve_preferences=("CurveP256", "X25519"),
        ),
        MappingProxyType({"X-Frame-Options": "sameorigin", "X-XSS-Protection": "0"}),
        MappingProxyType({"asha": PasswordHash(HASH)}),
    )


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [
        ("1s", 1),
        ("100ms", 0.1),
        ("1m30.5s", 90.5),
        (".5h", 1800),
        ("2us", 2e-6),
        ("2\u00b5s", 2e-6),
    ],
)
def test_the_interval_of_a_rate_limit_is_a_duration_as_in_go(interval: str, seconds: float) -> None:
    limit = web_config.parse(f"rate_limit: {{interval: {interval}, burst: 3}}", "FILE").rate_limit
    assert limit is not None
    assert limit.interval == pytest.approx(seconds)
    assert limit.burst == 3


def test_a_header_on_several_lines_becomes_one_line(folder: Path) -> None:
    """As Go sends it; a second line would be a header of its own."""
    text = (CONFIGS / "good" / "headers.yml").read_text("utf-8")
    assert web_config.parse(text, str(folder / "web.yml")).headers == {
        "X-Frame-Options": "deny",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "1",
        "Content-Security-Policy": "default-src 'self'; img-src *.example",
    }
    block = "http_server_config:\n  headers:\n    X-XSS-Protection: |\n      1\n      Evil: yes\n"
    assert web_config.parse(block, "FILE").headers == {"X-XSS-Protection": "1 Evil: yes"}


def test_no_hash_and_no_key_is_shown_or_copied_and_nothing_can_be_changed() -> None:
    loaded = web_config.parse(
        "tls_server_config:\n  cert_file: a\n  key: canary-key\n" + users("asha"), "FILE"
    )
    assert not [canary for canary in CANARIES if canary in f"{loaded!r} {loaded} {loaded.users}"]
    stored = loaded.users["asha"]
    assert repr(stored) == "<hash>"
    for copied in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            copied(stored)
    with pytest.raises(TypeError):
        loaded.users["eve"] = stored  # type: ignore[index]  # what must not work
    with pytest.raises(AttributeError):
        loaded.tls = None  # type: ignore[misc]  # likewise


# ---- the file while the process runs


def users(*names: str) -> str:
    return "basic_auth_users:\n" + "".join(f"  {name}: {HASH}\n" for name in names)


def write(path: Path, text: str) -> None:
    """Replace a file as careful programs do: another inode, all at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [f"{record.getMessage()} {getattr(record, 'fields', '')}".strip() for record in ours]


def test_a_changed_file_is_read_again_a_second_later(tmp_path: Path, time: FakeTime) -> None:
    """Not sooner, and only when it changed."""
    path = tmp_path / "web.yml"
    path.write_text(users("asha"))
    file = follow(str(path), time.clock)
    first = file.current()
    write(path, users("bala"))
    time.pass_(0.9)
    assert file.current() is first
    time.pass_(0.2)
    second = file.current()
    assert set(second.users) == {"bala"}
    time.pass_(5)
    assert file.current() is second


def test_a_change_of_size_time_or_permissions_is_noticed(tmp_path: Path) -> None:
    """An editor may keep the size, and a tool that restores files the time."""
    path = tmp_path / "key.pem"
    path.write_text("asha")
    before, seen = path.stat(), {fingerprint(str(path))}
    path.write_text("asha and bala")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen.add(fingerprint(str(path)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    seen.add(fingerprint(str(path)))
    path.chmod(0o600)
    seen.add(fingerprint(str(path)))
    write(path, "asha and bala")
    seen.add(fingerprint(str(path)))
    path.unlink()
    assert len({*seen, fingerprint(str(path))}) == 6


@pytest.mark.parametrize("how", ["bad", "gone"])
def test_a_bad_change_keeps_the_previous_version_and_is_logged_once(
    tmp_path: Path, time: FakeTime, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A typing error locks nobody out and lets nobody in."""
    path = tmp_path / "web.yml"
    path.write_text(users("asha"))
    file = follow(str(path), time.clock)
    if how == "gone":
        path.unlink()
    else:
        write(path, "basic_auth_users:\n  asha: canary\n")
    for _ in range(100):
        time.pass_(2)
        assert set(file.current().users) == {"asha"}
    reasons = {
        "bad": f"{path}:2: basic_auth_users.asha: is not a bcrypt hash ($2a$, $2b$ or $2y$);"
        " make one with `htpasswd -nBC 10 USER`",
        "gone": f"{path}: cannot be read: No such file or directory",
    }
    assert messages(caplog) == [
        "invalid web configuration; keeping the previous one " + str({"problem": reasons[how]})
    ]
    write(path, users("bala"))
    time.pass_(2)
    assert set(file.current().users) == {"bala"}


def test_a_failed_load_is_tried_again_by_a_reload_or_a_minute_later(
    time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    """Its cause may be something else than the file."""
    version, broken, loads = 0, False, 0

    def load() -> int:
        nonlocal loads
        loads += 1
        if broken:
            raise ConfigError(["broken"])
        return version

    file = FollowedFiles(
        lambda: version, load, failure="failed", accept=lambda *_: None, clock=time.clock
    )
    file.retry()  # nothing failed
    assert file.is_up_to_date
    version, broken = 1, True
    time.pass_(1)
    assert (file.current(), loads) == (0, 2)
    assert not file.is_up_to_date
    time.pass_(59)
    assert (file.current(), loads) == (0, 2)
    time.pass_(1)
    assert (file.current(), loads) == (0, 3)
    assert len(messages(caplog)) == 1
    file.retry()
    assert (file.current(), loads) == (0, 4)
    assert len(messages(caplog)) == 2
    broken = False
    file.retry()
    assert (file.current(), loads) == (1, 5)
    assert file.is_up_to_date
    file.retry()
    time.pass_(100)
    assert (file.current(), loads) == (1, 5)


@pytest.mark.parametrize(
    ("before", "after", "logged"),
    [
        pytest.param(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n",
            "tls_server_config:\n  cert_file: server.crt\n  key_file: gone.key\n",
            [],
            id="certificate-being-replaced",
        ),
        pytest.param(
            "",
            "tls_server_config:\n  cert_file: a\n  key_file: b\n",
            ["turning TLS on or off requires a restart; the rest is in force"],
            id="tls-turned-on",
        ),
    ],
)
def test_users_change_whatever_changes_about_tls(
    folder: Path,
    time: FakeTime,
    caplog: pytest.LogCaptureFixture,
    *,
    before: str,
    after: str,
    logged: list[str],
) -> None:
    """A user that was removed cannot log in until somebody has found the right key."""
    path = folder / "changing.yml"
    path.write_text(before + users("asha"))
    file = follow(str(path), time.clock)
    write(path, after + users("bala"))
    time.pass_(2)
    assert set(file.current().users) == {"bala"}
    assert messages(caplog) == logged


CERTIFICATE = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
REQUIRED = CERTIFICATE + "  client_auth_type: RequireAndVerifyClientCert\n"
IF_GIVEN = CERTIFICATE + "  client_auth_type: VerifyClientCertIfGiven\n"
CA = "  client_ca_file: ca.crt\n"
SANS = "  client_allowed_sans: [prometheus.example]\n"


@pytest.mark.fault(200)
@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        pytest.param(users("asha"), "", ["basic_auth_users"], id="emptied"),
        pytest.param(users("asha"), "basic_auth_users:\n", ["basic_auth_users"], id="key-alone"),
        pytest.param(CERTIFICATE + users("asha"), CERTIFICATE, ["basic_auth_users"], id="half"),
        pytest.param(REQUIRED, IF_GIVEN, ["client_auth_type"], id="certificates-optional"),
        pytest.param(IF_GIVEN, CERTIFICATE, ["client_auth_type"], id="certificates-not-checked"),
        pytest.param(REQUIRED + CA, REQUIRED, ["client_ca_file"], id="any-public-ca"),
        pytest.param(REQUIRED + SANS, REQUIRED, ["client_allowed_sans"], id="any-name"),
        pytest.param(
            REQUIRED + CA + SANS + users("asha"),
            "",
            ["basic_auth_users", "client_auth_type", "client_ca_file", "client_allowed_sans"],
            id="everything",
        ),
    ],
)
def test_a_reload_does_not_remove_what_keeps_clients_out(
    folder: Path,
    time: FakeTime,
    caplog: pytest.LogCaptureFixture,
    *,
    before: str,
    after: str,
    lost: list[str],
) -> None:
    """An emptied or half-written file opens nothing; a restart does what the file says."""
    path = folder / "protected.yml"
    path.write_text(before)
    file = follow(str(path), time.clock)
    protected = file.current()
    write(path, after)
    for _ in range(2):
        time.pass_(61)
        assert file.current() is protected
        assert not file.is_up_to_date
    (message,) = messages(caplog)
    assert message.startswith("invalid web configuration; keeping the previous one")
    assert (
        re.findall(r"(\w+): no longer keeps clients out; only a restart removes", message) == lost
    )
    write(path, before + "http_server_config: {http2: true}\n")
    time.pass_(1)
    assert file.current().users == protected.users
    assert file.is_up_to_date


@pytest.mark.fault(200)
def test_a_file_without_tls_and_users_is_a_warning_at_the_start(
    tmp_path: Path, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "web.yml"
    path.write_text("http_server_config:\n")
    follow(str(path), time.clock)
    assert messages(caplog) == [
        f"the web configuration sets neither TLS nor users {{'file': '{path}'}}"
    ]


@pytest.mark.fault(200)
def test_a_pipe_is_refused_because_it_is_empty_when_it_is_read_again(tmp_path: Path) -> None:
    """Such as `--web.config.file <(...)`, or a pipe in the place of a file at a reload."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    refused = refusal(lambda: check_web_config(str(path)))
    assert refused.problems == (f"{path}: is a pipe; use a regular file",)


def test_every_suite_that_may_be_named_is_known_to_openssl() -> None:
    """A name that OpenSSL does not know would be left out of the list without a word."""
    for name, of_openssl in tls_settings.SUITES.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(of_openssl)
        offered = [
            suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"
        ]
        assert offered == [of_openssl], name
