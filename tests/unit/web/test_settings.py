"""Where things stand: the telemetry path, the external URL and the route prefix."""

from __future__ import annotations

import pytest

from exophone_exporter.web.settings import WebSettings


def from_flags(external_url: str = "", route_prefix: str | None = None) -> WebSettings:
    return WebSettings.from_flags("/metrics", 40, False, external_url, route_prefix)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("metrics", id="no-slash"),
        pytest.param("", id="empty"),
        pytest.param("/", id="status-page"),
        pytest.param("/docs", id="docs"),
        pytest.param("/probe", id="probe"),
        pytest.param("/-/healthy", id="healthy"),
        pytest.param("/-/ready", id="ready"),
        pytest.param("/-/reload", id="reload"),
        pytest.param("/{name}", id="a-pattern"),
        pytest.param("/a b", id="space"),
        pytest.param("/metrics?x=1", id="query"),
        pytest.param("//evil.example/metrics", id="a-host-in-a-link"),
        pytest.param("/a//b", id="empty-segment"),
        pytest.param("/a/../b", id="dots"),
        pytest.param("/.", id="dot"),
    ],
)
def test_telemetry_path_that_cannot_work_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ValueError, match="is no path like /metrics, or one of /, /docs, /probe,"):
        WebSettings(telemetry_path=path)
    with pytest.raises(ValueError, match=r"^--web.telemetry-path: "):
        WebSettings.from_flags(path, 40, False, "", None)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/metrics", id="usual"),
        pytest.param("/a/b.c/d_e~f-g", id="deep"),
        pytest.param("/metrics/", id="slash-at-the-end"),
        pytest.param("/...", id="three-dots-are-a-name"),
    ],
)
def test_telemetry_path_stays_as_it_was_written(path: str) -> None:
    assert WebSettings(telemetry_path=path).telemetry_path == path


def test_flags_are_kept() -> None:
    settings = WebSettings.from_flags("/m", 3, True, "", None)
    assert settings == WebSettings("/m", max_requests=3, enable_lifecycle=True)


@pytest.mark.parametrize(
    ("external_url", "given", "prefix", "link"),
    [
        pytest.param("", None, "", "/metrics", id="nothing"),
        pytest.param("http://h", None, "", "/metrics", id="host-alone"),
        pytest.param("http://h/", None, "", "/metrics", id="slash"),
        pytest.param("https://h:8443/x", None, "/x", "/x/metrics", id="path-of-the-url"),
        pytest.param("https://h/x/y///", None, "/x/y", "/x/y/metrics", id="slashes-at-the-end"),
        pytest.param("https://h/x", "", "/x", "/x/metrics", id="empty-is-not-given"),
        pytest.param("https://h/x", "/", "", "/x/metrics", id="proxy-takes-the-prefix-away"),
        pytest.param("https://h/x", "/y", "/y", "/x/metrics", id="proxy-changes-the-prefix"),
        pytest.param("http://h", "/y", "/y", "/metrics", id="proxy-adds-the-prefix"),
        pytest.param("", "/y", "/y", "/y/metrics", id="prefix-alone"),
        pytest.param("", "y/z/", "/y/z", "/y/z/metrics", id="prefix-without-slash"),
        pytest.param("", "//y", "/y", "/y/metrics", id="prefix-with-two-slashes"),
        pytest.param("HTTP://[::1]:9/x", None, "/x", "/x/metrics", id="ipv6-and-capitals"),
    ],
)
def test_routes_stand_under_the_prefix_and_links_under_the_external_path(
    external_url: str, given: str | None, prefix: str, link: str
) -> None:
    """As Prometheus has it: the prefix is the URL's own path unless it was given."""
    settings = from_flags(external_url, given)
    assert settings.route_prefix == prefix
    assert settings.link("/metrics") == link


def test_external_url_is_kept_without_a_slash_at_its_end() -> None:
    assert WebSettings(external_url="https://h/x/").external_url == "https://h/x"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("h/x", "starts with neither http:// nor https://", id="no-scheme"),
        pytest.param("/x", "starts with neither", id="path-alone"),
        pytest.param("//h/x", "starts with neither", id="host-alone"),
        pytest.param("ftp://h/x", "starts with neither", id="ftp"),
        pytest.param("javascript:alert(1)", "starts with neither", id="javascript"),
        pytest.param("'http://h/x'", "starts with neither", id="quotes"),
        pytest.param("http:///x", "the host is missing", id="no-host"),
        pytest.param("http://:80/x", "the host is missing", id="port-alone"),
        pytest.param("http://h:0/x", "its port is 0", id="port-zero"),
        pytest.param('http://h"/x', "the host is missing or is none", id="quote-in-host"),
        pytest.param("http://h\\x", "the host is missing or is none", id="backslash"),
        pytest.param("http://h:x/", "the host or the port cannot be read", id="bad-port"),
        pytest.param("http://h:99999/", "the host or the port cannot be read", id="large-port"),
        pytest.param("http://[::1/x", "the host or the port cannot be read", id="half-address"),
        pytest.param("http://h/x?a=secret", "a query or fragment", id="query"),
        pytest.param("http://h/x?", "a query or fragment", id="empty-query"),
        pytest.param("http://h/x#secret", "a query or fragment", id="fragment"),
        pytest.param("http://me:secret@h/x", "user and password", id="userinfo"),
        pytest.param("http://@h/x", "user and password", id="empty-userinfo"),
        pytest.param("http://h/a b", "only printable ASCII", id="space"),
        pytest.param("http://h/a\nb", "only printable ASCII", id="newline"),
        pytest.param("http://h/\u00e4", "only printable ASCII", id="umlaut"),
        pytest.param("http://h/%20", "the path may have letters", id="escape"),
        pytest.param("http://h/{x}", "the path may have letters", id="pattern"),
        pytest.param("http://h/a//b", "the path may have letters", id="empty-segment"),
        pytest.param("http://h//evil.example", "the path may have letters", id="two-slashes"),
        pytest.param("http://h/a/../b", "the path may have letters", id="dots"),
    ],
)
def test_external_url_that_is_none_is_refused_with_advice(url: str, message: str) -> None:
    """One line that names the flag, and never repeats what may hold a password."""
    with pytest.raises(ValueError, match=r"^--web.external-url: ") as caught:
        from_flags(url)
    text = str(caught.value)
    assert message in text
    assert text.endswith("; write it like https://example.com/exophone")
    assert "\n" not in text
    assert "secret" not in text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param("/a b", id="space"),
        pytest.param("/{x}", id="pattern"),
        pytest.param("/a//b", id="empty-segment"),
        pytest.param("/..", id="dots"),
        pytest.param("/%41", id="escape"),
        pytest.param("/\u00e4", id="umlaut"),
        pytest.param("http://h/x", id="url"),
    ],
)
def test_route_prefix_that_cannot_be_served_is_refused_with_advice(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"^--web.route-prefix: .* write it like /exophone$"):
        from_flags(route_prefix=prefix)


def test_collisions_are_judged_without_the_prefix() -> None:
    """The metrics may have the prefix's own name; they may not have the name of the docs."""
    settings = WebSettings(route_prefix="/metrics")
    assert settings.link(settings.telemetry_path) == "/metrics/metrics"
    with pytest.raises(ValueError, match="one of"):
        WebSettings(telemetry_path="/docs", route_prefix="/x")
