"""A server that misbehaves on the wire as scripted: cut answers, resets, drips, silence, floods."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

Script = Callable[["Conversation"], None]

HEAD: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

_PATIENCE_SECONDS: Final = 10.0
_SEND_BUFFER_BYTES: Final = 64 * 1024
_REQUEST_BYTES_MAX: Final = 64 * 1024
# SO_LINGER on, with no time to linger: closing then sends RST instead of FIN.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer with a Content-Length, unless a header says how else the body ends."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    if not any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Conversation:
    """One connection, as the script of a test sees it. Ends quietly when the client leaves."""

    def __init__(self, server: FaultServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock

    def read_request(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = self._sock.recv(4096)
            if not received or len(head) > _REQUEST_BYTES_MAX:
                raise ConnectionAbortedError
            head += received
        self._server.requests.append(head.decode("latin-1"))

    def read_some(self) -> None:
        if not self._sock.recv(4096):
            raise ConnectionAbortedError

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def drip(self, data: bytes, every_seconds: float) -> None:
        for byte in data:
            self._sock.sendall(bytes([byte]))
            if self._server.stopping.wait(every_seconds):
                return

    def flood(self, data: bytes, total_bytes: int) -> None:
        """Send the same again and again until the client leaves, and count what it took.

        The system holds little of it: what was sent was nearly all read.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        while self._server.flooded_bytes < total_bytes:
            self._sock.sendall(data)
            self._server.flooded_bytes += len(data)

    def wait(self, seconds: float) -> None:
        self._server.stopping.wait(seconds)

    def close(self) -> None:
        self._sock.close()

    def stay_silent(self) -> None:
        """Say nothing until the client leaves or the server stops."""
        while self._sock.recv(4096):
            pass

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()


def answering(*answers: bytes) -> Script:
    """A script that gives each request of a connection the next answer, then closes."""

    def script(conversation: Conversation) -> None:
        for answer in answers:
            conversation.read_request()
            conversation.send(answer)

    return script


def _scripted(*steps: Script) -> Script:
    """A script that waits for a request, and then does some things."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        for step in steps:
            step(conversation)

    return script


def _sending(data: bytes) -> Script:
    return lambda conversation: conversation.send(data)


def saying(data: bytes) -> Script:
    return _scripted(_sending(data))


def saying_then_silence(data: bytes) -> Script:
    return _scripted(_sending(data), Conversation.stay_silent)


def saying_then_reset(data: bytes) -> Script:
    return _scripted(_sending(data), Conversation.reset)


def dripping(head: bytes, drops: bytes) -> Script:
    return _scripted(_sending(head), lambda conversation: conversation.drip(drops, 0.03))


def flooding(head: bytes, data: bytes, total_bytes: int) -> Script:
    return _scripted(_sending(head), lambda conversation: conversation.flood(data, total_bytes))


@contextlib.contextmanager
def hanging_port() -> Iterator[int]:
    """A port with a full backlog, which takes no connection and refuses none."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class FaultServer:
    """Plays a script to each connection, the last one for all that come after; stops by itself.

    `requests` are the heads that came, `connections` counts those accepted, whether or not
    anything was said.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        lasts_seconds: float = 3 * _PATIENCE_SECONDS,
    ) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self.flooded_bytes = 0
        self.stopping = threading.Event()
        self._scripts = scripts
        self._tls = tls
        self._lasts_seconds = lasts_seconds
        self._open: list[tuple[threading.Thread, socket.socket]] = []
        # Bound and never listening: the port stays ours while connections are refused.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self._listener = self._listen()
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def refuse(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def accept_again(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = self._listen()

    def settle(self) -> None:
        """Wait until every connection that its client has left is closed here too."""
        for thread, _ in self._open:
            thread.join(_PATIENCE_SECONDS)

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.refuse()
        self._accepting.join()
        self._reserved.close()
        for thread, sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(_PATIENCE_SECONDS)

    def _accept(self) -> None:
        ends_at = time.monotonic() + self._lasts_seconds
        while not self.stopping.is_set() and time.monotonic() < ends_at:
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # connections are refused for now
                self.stopping.wait(0.005)
                continue
            self._start(sock)

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self.port))
        listener.settimeout(0.02)
        return listener

    def _start(self, sock: socket.socket) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        sock.settimeout(_PATIENCE_SECONDS)
        # What is sent in pieces arrives in pieces, immediately.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=self._play, args=(script, sock), daemon=True)
        self._open.append((thread, sock))
        thread.start()

    def _play(self, script: Script, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if self._tls is None:
                script(Conversation(self, sock))
                return
            with self._tls.wrap_socket(sock, server_side=True) as secure:
                script(Conversation(self, secure))
