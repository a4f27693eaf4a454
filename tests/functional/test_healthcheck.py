"""The image's HEALTHCHECK follows the flags; test_image.py runs it in a container."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import healthcheck
import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.lib.processes import PROGRAM
from tests.lib.servers import serving_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request


@contextlib.contextmanager
def answering(
    status: int = 200, prefix: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The address of a server that knows the path of health and no other."""

    def health(_: Request) -> PlainTextResponse:
        return PlainTextResponse("so it is", status)

    app = Starlette(routes=[Route(f"{prefix}/-/healthy", health)])
    with serving_app(app, tls=tls) as port:
        yield f"127.0.0.1:{port}"


def started_with(address: str, *words: str) -> list[str]:
    """The command line of process 1, as Linux has it, with an empty word at its end."""
    return [*PROGRAM, *words, f"--web.listen-address={address}", ""]


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        pytest.param(200, "", id="healthy"),
        pytest.param(401, "", id="a password is asked for"),
        pytest.param(503, "/-/healthy answers 503", id="unhealthy"),
        pytest.param(404, "/-/healthy answers 404", id="something else"),
    ],
)
def test_the_answer_decides(status: int, problem: str) -> None:
    """Only an exporter that works, or keeps to itself whether it does, is healthy."""
    with answering(status) as address:
        assert healthcheck.check(started_with(address, "serve")) == problem


def test_nobody_listens() -> None:
    """An exporter that does not answer is not healthy."""
    with answering() as address:
        pass
    assert "Connection refused" in healthcheck.check(started_with(address))


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]"])  # noqa: S104 - nothing listens there
def test_every_interface_is_asked_over_loopback(host: str) -> None:
    """An address that nobody can connect to means this machine."""
    with answering() as address:
        port = address.rpartition(":")[2]
        assert healthcheck.check(started_with(f"{host}:{port}")) == ""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--web.route-prefix=/behind/"], id="a prefix"),
        pytest.param(["--web.external-url", "https://x.test/behind"], id="the URL's path"),
    ],
)
def test_the_prefix_stands_before_the_path(words: list[str]) -> None:
    """The path is that which the exporter serves, however it was told."""
    with answering(prefix="/behind") as address:
        assert healthcheck.check(started_with(address, "demo", *words)) == ""
        assert healthcheck.check(started_with(address)) == "/-/healthy answers 404"


def test_an_init_does_no_harm() -> None:
    """`docker run --init` puts a program and `--` before ours, and other flags are not ours."""
    with answering() as address:
        words = ["/sbin/docker-init", "--", *started_with(address, "--log.level", "debug")]
        assert healthcheck.check(words) == ""


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("exporter.example").configure_cert(context)
    return context


def test_tls_is_spoken_where_it_may_be_asked_for() -> None:
    """A web configuration may ask for TLS, whose certificate names no loopback address."""
    with answering(503, tls=server_context(trustme.CA())) as address:
        words = started_with(address, "--web.config.file=web.yml")
        assert healthcheck.check(words) == "/-/healthy answers 503"
        assert healthcheck.check(started_with(address)) != ""


def test_a_web_configuration_without_tls() -> None:
    """Users alone leave the server with plain HTTP."""
    with answering() as address:
        assert healthcheck.check(started_with(address, "--web.config.file=web.yml")) == ""


def test_an_exporter_that_asks_for_a_certificate_is_alive() -> None:
    """The check has none to show, and needs none to know it."""
    authority = trustme.CA()
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with answering(tls=context) as address:
        assert healthcheck.check(started_with(address, "--web.config.file=web.yml")) == ""
