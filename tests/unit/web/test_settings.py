"""The telemetry path, the external URL and the route prefix."""

from __future__ import annotations

import pytest

from exophone_exporter.web.settings import (
    OWN_PATHS,
    WebSettings,
    external_url,
    route_prefix,
    telemetry_path,
)

UNSERVABLE = ("/{name}", "/a b", "/a?x=1", "/%41", "/ä", "//evil.example/a", "/a//b", "/a/../b")


@pytest.mark.parametrize("path", [*UNSERVABLE, "metrics", "", "/.", *OWN_PATHS])
def test_telemetry_path_that_cannot_be_served_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="use a path like /metrics, but not /, /docs, /probe,"):
        telemetry_path(path)


@pytest.mark.parametrize("path", ["/metrics", "/a/b.c/d_e~f-g", "/metrics/", "/..."])
def test_telemetry_path_stays_as_it_was_written(path: str) -> None:
    assert telemetry_path(path) == path


@pytest.mark.parametrize(
    ("url", "given", "prefix", "link"),
    [
        ("", "", "", "/metrics"),
        ("http://h", "", "", "/metrics"),
        ("http://h/", "", "", "/metrics"),
        ("https://h:8443/x", "", "/x", "/x/metrics"),
        ("https://h/x/y///", "", "/x/y", "/x/y/metrics"),
        ("https://h/x", "/", "", "/x/metrics"),  # the proxy removes the prefix
        ("https://h/x", "/y", "/y", "/x/metrics"),  # the proxy changes it
        ("http://h", "/y", "/y", "/metrics"),  # the proxy adds it
        ("", "/y", "/y", "/y/metrics"),
        ("", "y/z/", "/y/z", "/y/z/metrics"),
        ("", "//y", "/y", "/y/metrics"),
        ("", "/metrics", "/metrics", "/metrics/metrics"),
        ("HTTP://[::1]:9/x", "", "/x", "/x/metrics"),
    ],
)
def test_routes_are_under_the_prefix_and_links_under_the_external_path(
    url: str, given: str, prefix: str, link: str
) -> None:
    """As in Prometheus: the prefix is the URL's own path unless it was given."""
    settings = WebSettings(external_url=external_url(url), route_prefix=route_prefix(given))
    assert settings.prefix == prefix
    assert settings.link("/metrics") == link


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("h/x", "must start with http:// or https://"),
        ("/x", "must start with"),
        ("//h/x", "must start with"),
        ("ftp://h/x", "must start with"),
        ("javascript:alert(1)", "must start with"),
        ("'http://h/x'", "must start with"),
        ("http:///x", "missing or invalid host, or port 0"),
        ("http://:80/x", "missing or invalid host"),
        ("http://h:0/x", "port 0"),
        ('http://h"/x', "missing or invalid host"),
        ("http://h\\x", "missing or invalid host"),
        ("http://h:x/", "invalid host or port"),
        ("http://h:99999/", "invalid host or port"),
        ("http://[::1/x", "invalid host or port"),
        ("http://h/x?a=secret", "must not contain a query or a fragment"),
        ("http://h/x?", "a query or a fragment"),
        ("http://h/x#secret", "a query or a fragment"),
        ("http://me:secret@h/x", "must not contain a user or a password"),
        ("http://@h/x", "a user or a password"),
        ("http://h/a b", "only printable ASCII"),
        ("http://h/a\nb", "only printable ASCII"),
        ("http://h/ä", "only printable ASCII"),
        ("http://h/%20", "the path may contain letters"),
        ("http://h/{x}", "the path may contain letters"),
        ("http://h/a//b", "the path may contain letters"),
        ("http://h//evil.example", "the path may contain letters"),
        ("http://h/a/../b", "the path may contain letters"),
    ],
)
def test_invalid_external_url_is_refused_in_one_line_that_does_not_repeat_it(
    url: str, message: str
) -> None:
    with pytest.raises(ValueError, match="; use a URL like https://example") as caught:
        external_url(url)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert "secret" not in text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("prefix", ["/a b", "/{x}", "/a//b", "/..", "/%41", "/ä", "http://h/x"])
def test_route_prefix_that_cannot_be_served_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"; use a path like /exophone$"):
        route_prefix(prefix)
