"""Which format and encoding a client gets for what it says that it accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.metrics.negotiation import accepts_gzip, content_type

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
SCHEMES = ("underscores", "values", "dots", "allow-utf-8")
ESCAPED = {scheme: OPENMETRICS.replace("underscores", scheme) for scheme in SCHEMES}


@pytest.mark.fault(112)
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
            id="prometheus-2.42",
        ),
        pytest.param(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ESCAPED["allow-utf-8"],
            id="prometheus-3",
        ),
        pytest.param(
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,"
            "*/*;q=0.3",
            TEXT,
            id="prometheus-3-without-openmetrics",
        ),
        ("*/*", TEXT),
        ("", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ('Application/OpenMetrics-Text; Version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        *((f"application/openmetrics-text; escaping={each}", ESCAPED[each]) for each in SCHEMES),
        (
            "application/openmetrics-text;q=0.5;escaping=dots,application/openmetrics-text",
            OPENMETRICS,
        ),
        ("application/openmetrics-text,application/openmetrics-text;escaping=dots", OPENMETRICS),
        ("application/openmetrics-text;escaping=x\r\ny", OPENMETRICS),
        ("text/plain;version=0.0.4;escaping=values", TEXT),
    ],
)
def test_format_is_the_one_that_the_client_prefers(accept: str, expected: str) -> None:
    assert content_type(accept) == expected


@pytest.mark.fault(112)
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/plain;version=abc", TEXT),
        ('text/plain;version="1.0.0"', TEXT),
        ("text/plain;version=\u0663", TEXT),
        ("application/openmetrics-text;version=\u0663", TEXT),
        ("application/openmetrics-text;version=abc", TEXT),
        ("application/openmetrics-text;q=NaN", TEXT),
        ("application/openmetrics-text;q=\u0660", TEXT),
        ("application/openmetrics-text;q=-1", TEXT),
        ("application/openmetrics-text;q=1.5", TEXT),
        ("application/openmetrics-text;q=1e0", TEXT),
        ("application/openmetrics-text;q=", TEXT),
        (";;;,,,;q=,=", TEXT),
        ("a" * 10_000, TEXT),
        ("text/plain;" * 1000, TEXT),
        ("x/y," * 2500 + "application/openmetrics-text", OPENMETRICS),
    ],
)
def test_odd_accept_header_gets_one_of_the_two_constant_types(accept: str, expected: str) -> None:
    assert content_type(accept) == expected


TYPES = ("application/openmetrics-text", "text/plain", "text/*", "*/*", "text/html")
VERSIONS = ("", "1.0.0", "0.0.1", "0.0.4", "2.0.0")
QUALITIES = st.sampled_from([0, 1, 500, 1000]) | st.integers(0, 1000)
OFFERS = st.lists(
    st.tuples(st.sampled_from(TYPES), st.sampled_from(VERSIONS), QUALITIES), max_size=6
)


def best(offers: list[tuple[str, str, int]], name: str, versions: tuple[str, ...]) -> int | None:
    """How much a client wants a type, in thousandths; None where it does not name it."""
    wanted = [q for type_, version, q in offers if type_ == name and version in versions]
    return max(wanted, default=None)


@pytest.mark.fault(112)
@given(OFFERS, st.sampled_from([",", ", ", " ,\t"]), st.booleans())
def test_choice_obeys_what_the_client_says_in_any_order(
    offers: list[tuple[str, str, int]], comma: str, quoted: bool
) -> None:
    """OpenMetrics where it is wanted at least as much as text, of versions that we write."""
    openmetrics = best(offers, TYPES[0], VERSIONS[:3]) or 0
    texts = [best(offers, name, VERSIONS) for name in TYPES[1:4]]
    text = next((q for q in texts if q is not None), 0)
    mark = '"' if quoted else ""
    header = comma.join(
        name + (f"; Version={mark}{version}{mark}" if version else "") + f";q={q / 1000:.3f}"
        for name, version, q in offers
    )
    assert content_type(header) == (OPENMETRICS if openmetrics and openmetrics >= text else TEXT)


@pytest.mark.fault(112)
@given(st.text() | st.text(alphabet='application/openmetrics-text;plain*,=q01.v" \u0663\x00\xff'))
def test_no_header_can_break_the_choice(header: str) -> None:
    assert content_type(header) in {TEXT, *ESCAPED.values()}
    assert accepts_gzip(header) in {True, False}


@pytest.mark.fault(112)
@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("gzip", True),
        ("deflate, gzip, br, zstd", True),
        ("GZIP;Q=0.5", True),
        ("*", True),
        ("gzip;q=0.001", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("gzip;q=NaN", False),
        ("gzipped", False),
        ("br;gzip", False),
    ],
)
def test_gzip_only_where_the_client_takes_it(accept_encoding: str, expected: bool) -> None:
    assert accepts_gzip(accept_encoding) is expected
