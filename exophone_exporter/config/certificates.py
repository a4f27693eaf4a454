"""What is wrong with a file of CA certificates, in words for the person who named it."""

from __future__ import annotations

import codecs
import re
import ssl
from typing import Final

_BEGIN: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----\s*$", re.MULTILINE)
_END: Final = re.compile(rb"^-----END [A-Z0-9 ]+-----\s*$", re.MULTILINE)
# What OpenSSL reads from such a file; the parser below does not know the second.
_CERTIFICATES: Final = (b"CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CERTIFICATE")
_DER_SEQUENCE: Final = b"\x30\x82"


def problem_of(content: bytes) -> str | None:
    """Why this content cannot be used as a `ca_file`; None if it can."""
    content = content.removeprefix(codecs.BOM_UTF8)
    kinds = [match[1] for match in _BEGIN.finditer(content)]
    if not content.strip():
        return "is empty"
    if content.startswith(_DER_SEQUENCE):
        return "is in DER format; convert it with `openssl x509 -inform der`"
    if re.search(rb"-----END [A-Z0-9 ]+----------BEGIN ", content):
        return "contains two certificates joined without a newline between them"
    if not any(kind in _CERTIFICATES for kind in kinds):
        has_key = any(kind.endswith(b"PRIVATE KEY") for kind in kinds)
        found = "a private key and " if has_key else ""
        return f"contains {found}no PEM certificate"
    if len(_END.findall(content)) < len(kinds):
        return "contains a certificate that is cut short"
    return _reason(content) if b"TRUSTED CERTIFICATE" not in kinds else None


def _reason(content: bytes) -> str | None:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not a certificate"
        return f"contains an invalid certificate ({reason.lower().replace('_', ' ')})"
    return None
