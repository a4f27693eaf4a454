"""Figures as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exophone_exporter.config.number_rules import (
    ANY,
    CIRCLES,
    NONE,
    UNCHECKED,
    Expectation,
    NumberRule,
    NumberRules,
)
from exophone_exporter.inventory.expectations import judge
from exophone_exporter.inventory.formatting import (
    circle,
    expected,
    flow_state,
    money,
    problem,
    span,
)
from tests.lib.support import phone


@pytest.mark.parametrize(
    ("amount", "currency", "written"),
    [
        pytest.param("0.000000", "INR", "₹0.00", id="zero"),
        pytest.param("499.000000", "INR", "₹499.00", id="three-digits"),
        pytest.param("4990", "INR", "₹4,990.00", id="thousand"),
        pytest.param("49900.5", "INR", "₹49,900.50", id="ten-thousand"),
        pytest.param("100000", "INR", "₹1,00,000.00", id="lakh"),
        pytest.param("1234567.89", "INR", "₹12,34,567.89", id="lakhs"),
        pytest.param("1234567890.12", "INR", "₹1,23,45,67,890.12", id="crores"),
        pytest.param("0.006500", "INR", "₹0.0065", id="price-of-a-pulse"),
        pytest.param("0.995", "INR", "₹0.995", id="never-rounded-up"),
        pytest.param("0.000000", "USD", "$0.00", id="dollars-zero"),
        pytest.param("1234567.89", "USD", "$1,234,567.89", id="dollars"),
        pytest.param("1234567.8", "SGD", "1,234,567.80 SGD", id="other-currency"),
        pytest.param("12", "", "12.00 (no currency)", id="no-currency"),
        pytest.param("-12345.5", "INR", "-₹12,345.50", id="owed"),
        pytest.param("-0.5", "SGD", "-0.50 SGD", id="owed-elsewhere"),
        pytest.param("1E+3", "INR", "₹1,000.00", id="exponent"),
    ],
)
def test_money_is_exact_and_grouped_as_its_country_does(
    amount: str, currency: str, written: str
) -> None:
    assert money(Decimal(amount), currency) == written


def test_unknown_amount_is_blank_and_not_zero() -> None:
    assert money(None, "INR") == ""


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        pytest.param(-5, "0 s", id="negative"),
        pytest.param(0, "0 s", id="nothing"),
        pytest.param(59.9, "59 s", id="last-second"),
        pytest.param(60, "1 min", id="minute"),
        pytest.param(3599, "59 min", id="last-minute"),
        pytest.param(3600, "1 h 0 min", id="hour"),
        pytest.param(7500, "2 h 5 min", id="hours-and-minutes"),
        pytest.param(86399, "23 h 59 min", id="last-hour"),
        pytest.param(86400, "1 d 0 h", id="day"),
        pytest.param(3 * 86400 + 4 * 3600 + 59, "3 d 4 h", id="days-and-hours"),
    ],
)
def test_span_is_in_its_two_largest_units(seconds: float, written: str) -> None:
    assert span(seconds) == written


@pytest.mark.parametrize(
    ("country", "region", "written"),
    [
        pytest.param("IN", "MH", "Maharashtra", id="circle"),
        pytest.param("IN", "UE", "Uttar Pradesh East", id="circle-of-two-words"),
        pytest.param("IN", "KO", "Kolkata", id="circle-of-a-city"),
        pytest.param("IN", "ZZ", "ZZ", id="unknown-circle"),
        pytest.param("IN", "", "", id="no-region"),
        pytest.param("MY", "KL", "KL", id="abroad-a-code-is-no-circle"),
        pytest.param("SG", "SG", "SG", id="country-code"),
    ],
)
def test_circle_has_its_name_in_india_alone(country: str, region: str, written: str) -> None:
    assert circle(phone(country=country, region=region)) == written


def test_every_circle_of_the_vendors_list_has_a_name() -> None:
    listed = "AP AS BR DL GJ HP HR JK KA KL KO MH MP MU NE OR PB RJ TN UE UW WB"
    assert " ".join(CIRCLES) == listed
    assert len(set(CIRCLES.values())) == 22


@pytest.mark.parametrize(
    ("url", "capable", "written"),
    [
        pytest.param("http://my.exotel.in/a/exoml/start_sms/22", True, "22", id="flow"),
        pytest.param("https://customer.example/", True, "external", id="foreign"),
        pytest.param("", True, "unattached", id="unattached"),
        pytest.param("", False, "not capable", id="not-capable"),
        pytest.param(None, True, "unreadable", id="unreadable"),
        pytest.param("http://my.exotel.in/a/exoml/start_sms/22", False, "22", id="set-anyway"),
    ],
)
def test_flow_state_says_the_flow_or_why_there_is_none(
    url: str | None, capable: bool, written: str
) -> None:
    assert flow_state(phone(sms_url=url, sms_capable=capable), "sms") == written


@pytest.mark.parametrize(
    ("voice", "sms", "problems", "expectations"),
    [
        (("44",), ANY, ("voice wrong", "voice wrong (11)"), ("voice 44, sms any", "44")),
        (("22",), NONE, ("voice wrong, sms unwanted", "voice wrong (11), sms unwanted (22)"),
         ("voice 22, sms none",) * 2),
        (ANY, UNCHECKED, ("", ""), ("voice any, sms unchecked",) * 2),
        (("//a", "1"), ANY, ("voice wrong", "voice wrong (11)"),
         ("voice //a or 1, sms any", "external or 1")),
    ],
)  # fmt: skip
def test_problem_and_what_is_expected(
    voice: Expectation, sms: Expectation, problems: tuple[str, str], expectations: tuple[str, str]
) -> None:
    """For programs, and shorter for people, who also see the flow."""
    verdict = judge(phone(), NumberRules((NumberRule(1, "1", {}, voice, sms),)))
    assert (problem(verdict), problem(verdict, phone())) == problems
    whole = expected(verdict, text=" or ".join)
    assert (whole, expected(verdict, of_problems=True)) == expectations
