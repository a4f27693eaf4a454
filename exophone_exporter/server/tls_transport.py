"""TLS between a socket's transport and a connection.

The TLS of asyncio and uvloop keeps alerts to itself, so that no client learns why it was refused,
and lets OpenSSL choose the key exchange. (https://github.com/python/cpython/issues/98078)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

from exophone_exporter.server.client_hello import HelloReader
from exophone_exporter.server.connections import Connection
from exophone_exporter.server.refusals import Reason
from exophone_exporter.server.tls import Tls

_READ_BYTES: Final = 64 * 1024
# What is encrypted for one client cannot be shared between clients.
_HELD_BYTES: Final = 16 * 1024
# In the words of Go's server.
_HTTP_ANSWER: Final = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)


class TlsTransport(asyncio.Protocol):
    """The protocol of a socket's transport, and the transport of a connection.

    What the connection writes is encrypted immediately: only the socket's transport has a buffer.
    """

    def __init__(self, tls: Tls, connection: Connection) -> None:
        super().__init__()
        self._tls = tls
        self._connection = connection
        self._socket: Any = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._hello = HelloReader()
        self._ssl: ssl.SSLObject | None = None
        self._is_open = False

    # Called by the socket's transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the connection's deadline for its first request holds for the handshake too."""
        self._socket = transport
        self._socket.set_write_buffer_limits(high=_HELD_BYTES)
        self._connection.connection_made(cast("asyncio.Transport", self))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        self._connection.connection_lost(exc)
        self._ssl = None  # the garbage collector cannot see how large it is

    def pause_writing(self) -> None:
        """Let the connection wait until the client has read more."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Let the connection go on."""
        self._connection.resume_writing()

    def eof_received(self) -> bool:
        """Keep the socket open while the connection answers."""
        return self._connection.eof_received()

    def data_received(self, data: bytes) -> None:
        """Decrypt what came; a part of the hello waits for the rest."""
        if self._connection.ignores_input:
            return
        if self._ssl:
            self._incoming.write(data)
        else:
            self._begin(data)
        if self._ssl:
            self._decrypt(self._ssl)

    # Called by the connection.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if data and self._ssl and self._is_open:
            self._ssl.write(data)
            self._flush()

    def write_eof(self) -> None:
        """End the output; the client can read it to its end, even if it still sends."""
        self._close_output()
        self._socket.write_eof()

    def close(self) -> None:
        """End once everything is sent."""
        self._close_output()
        self._socket.close()

    def __getattr__(self, name: str) -> Any:
        """All else is done by the socket's transport."""
        return getattr(self._socket, name)

    def _begin(self, data: bytes) -> None:
        """Choose a context once the hello is complete."""
        offer = self._hello.feed(data)
        if self._hello.is_http:
            self._outgoing.write(_HTTP_ANSWER)
            self._refuse("plain_http")
        elif offer:
            self._incoming.write(self._hello.received)
            del self._hello  # it is no longer needed
            context = self._tls.context_for(*offer)
            self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def _decrypt(self, connection: ssl.SSLObject) -> None:
        try:
            if not self._is_open:
                connection.do_handshake()
                if not self._tls.accepts(connection):
                    self._connection.forbid()
                self._is_open = True  # not if the check raises
            self._read(connection)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._refuse(*self._reason_of(error))

    def _read(self, connection: ssl.SSLObject) -> None:
        while not self._connection.ignores_input and not self.is_closing():
            data = connection.read(_READ_BYTES)
            if data:
                self._connection.data_received(data)
            elif not self._connection.eof_received():
                self.close()

    def _refuse(self, reason: Reason, detail: str = "") -> None:
        """End the connection after what waits to be sent, which says why."""
        self._is_open = False
        self._connection.refuse_tls(reason, detail)

    def _close_output(self) -> None:
        if self._ssl and self._is_open:
            self._is_open = False
            with contextlib.suppress(ssl.SSLError):
                self._ssl.unwrap()  # it does not wait for the client to do the same
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and not self.is_closing():
            self._socket.write(self._outgoing.read())

    def _reason_of(self, error: ssl.SSLError) -> tuple[Reason, str]:
        """Why a client is refused, in OpenSSL's words."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return "client_certificate", error.verify_message
        words = (error.reason or str(error)).replace("_", " ").lower()
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "client_certificate", words
        return "malformed_request" if self._is_open else "tls_handshake", words
