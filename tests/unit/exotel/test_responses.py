"""What a status means, when to ask again, and how long to wait."""

from __future__ import annotations

import time
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from exophone_exporter.errors import ErrorInside, PollError, RateLimited, ServerFailed
from exophone_exporter.exotel.responses import (
    Answer,
    error_of,
    retry_after_seconds,
    retry_delay_seconds,
)

# 14 November 2023, 22:13:20 UTC
NOW = 1_700_000_000.0


def error(status: int, body: bytes = b"", **headers: str) -> PollError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    found = error_of(Answer(status, CaseInsensitiveDict(names), body), NOW, "list")
    assert found.status == status
    return found


UNLISTED = "a status that the API's documentation does not list"
PARAMETERS = "the API rejects the parameters of the request; is page_size larger than it allows?"
ELSEWHERE = "a redirect to elsewhere, which is not followed; fix base_url or region"


def status(row: int, number: int, reason: str, attempts: int, told: str) -> Any:
    """One status, of a row unless it is 0, and what is said where the vendor says nothing."""
    marks = [pytest.mark.fault(row)] if row else []
    return pytest.param(number, reason, attempts, told, id=f"{number}", marks=marks)


@pytest.mark.parametrize(
    ("number", "reason", "attempts", "told"),
    [
        status(38, 0, "status", 1, UNLISTED),
        status(0, 101, "status", 1, UNLISTED),
        status(21, 201, "status", 1, UNLISTED),
        status(21, 202, "status", 1, "the API accepted the request and sent no result yet"),
        status(21, 204, "status", 1, UNLISTED),
        status(22, 300, "status", 1, ELSEWHERE),
        status(22, 399, "status", 1, ELSEWHERE),
        status(26, 400, "status", 1, PARAMETERS),
        status(
            27,
            401,
            "auth",
            1,
            "the API key, token or SID is wrong, or the region is: an account in Mumbai"
            " (region: mumbai) gets the same answer from Singapore",
        ),
        status(28, 402, "billing", 1, "the account's plan or balance does not allow it"),
        status(29, 403, "forbidden", 1, "the account is suspended or the key lacks the permission"),
        status(30, 404, "not_found", 1, "no such account or number; is the sid right?"),
        status(31, 408, "server", 3, "the server waited too long"),
        status(0, 409, "status", 1, "the request conflicts with the state of the account"),
        status(30, 410, "not_found", 1, "the account or number is gone"),
        status(0, 418, "status", 1, UNLISTED),
        status(26, 422, "status", 1, PARAMETERS),
        status(31, 425, "server", 3, "the server asked to retry later"),
        status(32, 429, "rate_limited", 3, "the API limits the requests"),
        status(0, 499, "status", 1, UNLISTED),
        status(35, 500, "server", 3, "the API failed"),
        status(31, 502, "server", 3, "the API failed"),
        status(0, 503, "server", 3, "the API is down, overloaded, or limits the requests"),
        status(31, 504, "server", 3, "the API failed"),
        status(0, 599, "server", 3, "the API failed"),
        status(0, 600, "status", 1, UNLISTED),
        status(38, 999, "status", 1, UNLISTED),
    ],
)
def test_status_has_a_reason_a_number_of_attempts_and_advice(
    number: int, reason: str, attempts: int, told: str
) -> None:
    found = error(number)
    assert (found.reason, found.attempts) == (reason, attempts)
    assert str(found) == f"{number}: {told}"


@pytest.mark.fault(36)
@pytest.mark.parametrize("status", [403, 503], ids=str)
def test_403_or_503_that_names_a_wait_is_a_limit(status: int) -> None:
    found = error(status, retry_after="30")
    assert isinstance(found, RateLimited)
    assert found.retry_after_seconds == 30
    assert str(found) == f"{status}: the API limits the requests, and asks to wait 30s"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        pytest.param(
            403, "a firewall or proxy in front of the API refused the request", id="firewall"
        ),
        pytest.param(502, "the API failed", id="gateway"),
    ],
)
@pytest.mark.fault(29)
def test_page_of_html_is_not_taken_for_the_word_of_the_api(status: int, told: str) -> None:
    page = b"<!DOCTYPE html><html><head><title>Attention &amp; more</title></head></html>"
    assert str(error(status, page)) == (
        f'{status}: {told} (an HTML page, not the API, says: "Attention & more")'
    )


@pytest.mark.fault(26)
def test_question_about_a_single_number_has_no_page_size() -> None:
    found = error_of(Answer(400, {}, b""), NOW, "detail")
    assert str(found) == "400: the API rejects the parameters of the request"


@pytest.mark.parametrize(
    ("code", "headers", "reason", "told"),
    [
        pytest.param(400, {}, "status", f"400 inside a 200: {PARAMETERS}", id="400"),
        pytest.param(401, {}, "auth", "401 inside a 200: the API key, token or SID", id="401"),
        pytest.param(402, {}, "billing", "402 inside a 200: the account's plan", id="402"),
        pytest.param(404, {}, "not_found", "404 inside a 200: no such account", id="404"),
        pytest.param(
            429,
            {"Retry-After": "Tue, 14 Nov 2023 22:13:27 GMT"},
            "rate_limited",
            "429 inside a 200: the API limits the requests, and asks to wait 7s",
            id="429",
        ),
        pytest.param(500, {}, "server", "500 inside a 200: the API failed", id="500"),
        pytest.param(
            None, {}, "envelope", "the API answered 200 with an error inside: oh <>", id="none"
        ),
    ],
)
@pytest.mark.fault(20)
def test_error_inside_a_200_is_that_of_the_same_status(
    code: int | None, headers: dict[str, str], reason: str, told: str
) -> None:
    answer = Answer(200, headers, b"", mask=lambda text: text.replace("canary", "<>"))
    found = error_of(answer, NOW, "list", ErrorInside("oh canary", code))
    assert (found.reason, found.status) == (reason, code)
    assert str(found).startswith(told)
    assert "oh <>" in str(found)
    assert "canary" not in str(found)


@pytest.mark.fault(22, 23)
@pytest.mark.parametrize(
    ("location", "where"),
    [
        pytest.param("https://api.in.exotel.com/x?k=v#f", "https://api.in.exotel.com", id="host"),
        pytest.param("http://[::1]:8080/x", "http://[::1]:8080", id="ipv6-and-port"),
        pytest.param("https://user:canary@a.example/", "https://a.example", id="userinfo"),
        pytest.param("/other", "elsewhere", id="path-alone"),
        pytest.param("//a.example/x", "elsewhere", id="no-scheme"),
        pytest.param("", "elsewhere", id="empty"),
        pytest.param(None, "elsewhere", id="missing"),
        pytest.param("http://[::1", "elsewhere", id="malformed", marks=pytest.mark.fault(24)),
        pytest.param("http://a\x85b/", "http://a b", id="odd-host"),
    ],
)
def test_redirect_is_told_by_its_origin_alone(location: str | None, where: str) -> None:
    headers: dict[str, Any] = {} if location is None else {"location": location}
    assert str(error(302, b"<html><title>302 Found</title></html>", **headers)) == (
        f"302: a redirect to {where}, which is not followed; fix base_url or region"
    )


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("0", 0, id="zero"),
        pytest.param(" 30 ", 30, id="digits"),
        pytest.param("601", 600, id="over-the-cap"),
        pytest.param("9" * 5000, 600, id="beyond-all-integers"),
        pytest.param("-5", None, id="negative"),
        pytest.param("+5", None, id="signed"),
        pytest.param("1.5", None, id="fraction"),
        pytest.param("1e12", None, id="exponent"),
        pytest.param("NaN", None, id="nan"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("1_0", None, id="underscore"),
        pytest.param("١٢", None, id="arabic-digits"),
        pytest.param("²", None, id="superscript"),
        pytest.param("soon", None, id="words"),
        pytest.param("Tue, 14 Nov 2023 22:14:00 GMT", 40, id="date"),
        pytest.param("Tuesday, 14-Nov-23 22:14:00 GMT", 40, id="date-of-rfc-850"),
        pytest.param("Tue Nov 14 22:14:00 2023", 40, id="date-without-a-zone"),
        pytest.param("Wed, 15 Nov 2023 03:44:00 +0530", 40, id="date-of-another-zone"),
        pytest.param("Tue, 14 Nov 2023 22:13:00 GMT", 0, id="past-date"),
        pytest.param("Fri, 14 Nov 2053 22:13:00 GMT", 600, id="far-date"),
        pytest.param("Tue, 99 Nov 2023 22:13:00 GMT", None, id="day-99"),
        pytest.param("Tue, 14 Nov 99999 22:14:00 GMT", None, id="year-99999"),
    ],
)
def test_retry_after_is_digits_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.fault(128)
def test_date_without_a_zone_is_not_in_that_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        wait_seconds = retry_after_seconds("Tue Nov 14 22:14:00 2023", NOW)
    time.tzset()
    assert wait_seconds == 40


def limited(retry_after_seconds: float | None) -> RateLimited:
    return RateLimited("429", retry_after_seconds)


FAILED = ServerFailed("500")


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("attempt", "error", "delay"),
    [
        pytest.param(1, FAILED, (0, 0.5), id="first"),
        pytest.param(2, FAILED, (0, 1), id="second"),
        pytest.param(3, FAILED, (0, 2), id="third"),
        pytest.param(5, FAILED, (0, 8), id="fifth"),
        pytest.param(6, FAILED, (0, 10), id="capped"),
        pytest.param(10_000, FAILED, (0, 10), id="ten-thousandth"),
        pytest.param(1, limited(30.0), 30, id="as-the-api-asks"),
        pytest.param(1, limited(0.0), 0, id="immediately"),
        pytest.param(1, limited(None), (1, 2), id="limited-without-a-time"),
        pytest.param(2, limited(None), (2, 4), id="limited-again"),
        pytest.param(9, limited(None), (10, 20), id="limited-and-capped"),
    ],
)
def test_backoff_doubles_up_to_a_cap_with_full_jitter_or_is_what_the_api_asks(
    attempt: int, error: PollError, delay: object
) -> None:
    def uniform(low: float, high: float) -> Any:
        return low, high

    assert retry_delay_seconds(attempt, error, uniform) == delay
