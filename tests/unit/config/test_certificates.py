"""A file of CA certificates is good, or what is wrong with it is said."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from exophone_exporter.config import loader
from exophone_exporter.config.certificates import problem_of
from exophone_exporter.errors import ConfigError

PEM = trustme.CA().cert_pem.bytes()
KEY = trustme.CA().private_key_pem.bytes()
DER = ssl.PEM_cert_to_DER_cert(PEM.decode())


@pytest.mark.fault(175)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(PEM, None, id="one"),
        pytest.param(PEM + PEM, None, id="two"),
        pytest.param(b"\xef\xbb\xbfx\r\n" + PEM.replace(b"\n", b"\r\n"), None, id="windows"),
        pytest.param(b"\xef\xbb\xbf" + PEM, None, id="byte-order-mark"),
        pytest.param(KEY + PEM, None, id="with-a-key"),
        pytest.param(PEM.rstrip(b"\n"), None, id="no-newline-at-the-end"),
        pytest.param(
            PEM.rstrip(b"\n") + PEM,
            "contains two certificates joined without a newline between them",
            id="joined",
        ),
        pytest.param(PEM[:300], "contains a certificate that is cut short", id="cut"),
        pytest.param(PEM + PEM[:300], "contains a certificate that is cut short", id="second-cut"),
        pytest.param(
            PEM[:100] + PEM[200:], r"contains an invalid certificate \(.+\)", id="part-missing"
        ),
        pytest.param(KEY, "contains a private key and no PEM certificate", id="key"),
        pytest.param(DER, "is in DER format; .+", id="der"),
        pytest.param(b" \n", "is empty", id="empty"),
        pytest.param(b"hello", "contains no PEM certificate", id="text"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_check_config(
    content: bytes, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a message shortens a long path
    file = Path("ca.pem")
    file.write_bytes(content)
    account = "name: a, sid: a, api_key: k, api_token: t"
    text = f"accounts:\n  - {{{account}, ca_file: {file}}}\n"
    if problem is None:
        assert problem_of(content) is None
        assert loader.parse(text, "FILE", {}).accounts[0].ca_file == str(file)
        ssl.create_default_context(cafile=str(file))
        return
    with pytest.raises(ConfigError, match=f": accounts.0..ca_file: {file}: {problem}$"):
        loader.parse(text, "FILE", {})
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context(cafile=str(file))
