"""The section `tls_server_config` of a web configuration: its keys and what they may be.

Names of suites, curves and versions are those of exporter-toolkit, which are Go's.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exophone_exporter.config import strict_yaml
from exophone_exporter.config.fields import Section, checked, known, one_of, plain_text

FILE_SETTINGS: Final = ("cert_file", "key_file", "client_ca_file")
_UNVERIFIED: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
VERIFY_MODES: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# In Go's order of preference, without those that Go calls insecure.
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


@dataclass(frozen=True)
class Curve:
    """A group for the key exchange: OpenSSL's name of it, and its number in a hello."""

    name: str
    number: int


# The only ones that are offered, in order of preference: others cost a hello up to 0.2 s.
CURVES: Final = {
    "X25519": Curve("X25519", 0x1D),
    "CurveP256": Curve("prime256v1", 0x17),
    "CurveP384": Curve("secp384r1", 0x18),
    "CurveP521": Curve("secp521r1", 0x19),
}
BLANK: Final = (None, "")


Text = Annotated[str, BeforeValidator(plain_text)]
_Version = Annotated[Text, AfterValidator(one_of(*VERSIONS))]
_ClientAuthType = Annotated[
    Text,
    checked(
        lambda text: text not in _UNVERIFIED,
        "`{}` accepts unverified client certificates, which is not supported;"
        " use RequireAndVerifyClientCert with client_ca_file",
    ),
    AfterValidator(one_of(*VERIFY_MODES)),
]
_Suite = Annotated[Text, known("cipher suite", (*SUITES, *SUITES_OF_TLS13))]
_CurveName = Annotated[Text, known("curve", CURVES)]


class WebSection(Section):
    """A mapping in a web configuration: a key with nothing after it is as if it were left out."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_blank(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: inner for key, inner in value.items() if inner is not None}


class TlsSettings(WebSection):
    """The section `tls_server_config`.

    Of `cert` and `cert_file`, and of `key` and `key_file`, exactly one is not empty. Without
    `cipher_suites` and `curve_preferences` all are offered;
    `client_allowed_sans` is None for any name. `prefer_server_cipher_suites` is ignored, as by Go.
    """

    cert: Text = Field(default="", repr=False)
    cert_file: Text = ""
    key: Text = Field(default="", repr=False)
    key_file: Text = ""
    client_ca: Text = Field(default="", repr=False)
    client_ca_file: Text = ""
    client_auth_type: _ClientAuthType = "NoClientCert"
    client_allowed_sans: tuple[Text, ...] | None = None
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"
    cipher_suites: tuple[_Suite, ...] = ()
    curve_preferences: tuple[_CurveName, ...] = ()
    prefer_server_cipher_suites: Any = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it names."""
        return tuple(file for key in FILE_SETTINGS if (file := getattr(self, key)))

    def in_folder(self, folder: Path) -> TlsSettings:
        """The same, with paths relative to a folder."""
        given = ((key, getattr(self, key)) for key in FILE_SETTINGS)
        paths = {key: str(folder / path) for key, path in given if path}
        return self.model_copy(update=paths)


def contradictions(section: Mapping[str, strict_yaml.Value]) -> Iterator[tuple[str, str]]:
    """What is wrong with the keys of `tls_server_config` together: a key, or "", and why."""
    known = TlsSettings.model_fields
    given = {key: value for key, value in section.items() if key in known and value not in BLANK}
    if not given:
        return
    for name in ("cert", "key", "client_ca"):
        file = f"{name}_file"
        if name in given and file in given:
            yield name, f"is set together with `{file}`; keep one of them"
        elif name != "client_ca" and name not in given and file not in given:
            written = next((key for key in (file, name) if key in section), "")
            yield written, f"give one of `{file}` and `{name}`"
    if given.get("client_auth_type", "NoClientCert") == "NoClientCert":
        for key in ("client_ca_file", "client_ca", "client_allowed_sans"):
            if key in given:
                yield key, "has no effect without client_auth_type: RequireAndVerifyClientCert"
    if given.get("max_version") == "TLS12":
        yield from _unusable_with_tls12(given)


def _unusable_with_tls12(given: Mapping[str, strict_yaml.Value]) -> Iterator[tuple[str, str]]:
    suites = given.get("cipher_suites")
    if given.get("min_version") == "TLS13":
        yield "max_version", "is below min_version; no client could connect"
    elif isinstance(suites, list) and suites and not set(SUITES).intersection(map(str, suites)):
        yield "cipher_suites", "has only suites of TLS 1.3, but max_version is TLS12"
