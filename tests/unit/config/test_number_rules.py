"""Which numbers a rule matches, and which rules hide others."""

from __future__ import annotations

import pytest

from exophone_exporter.config.number_rules import NumberRule, NumberRules, matches_any
from tests.lib.support import number_rules

FIELDS = ("0112345", "+918047190123", "Outbound [South] a.b", "IN", "KA", "Landline")


def applies(**match: str) -> bool:
    return number_rules(match).first_match(FIELDS) is not None


@pytest.mark.parametrize(
    ("key", "glob"),
    [
        ("sid", "0112345"),
        ("sid", "*"),
        ("sid", "?112*5"),
        ("phone_number", "+9180*"),
        ("phone_number", "*123"),
        ("friendly_name", "OUTBOUND *"),
        ("friendly_name", "*[south]*"),
        ("friendly_name", "*o*a.?"),
        ("friendly_name", "*o*u*t*[*]*b"),
        ("country", "in"),
        ("region", "K?"),
        ("number_type", "land*"),
    ],
)
def test_a_glob_matches_the_whole_text_in_any_case(key: str, glob: str) -> None:
    """Brackets and points are themselves, so that a word such as [no flow] is one."""
    assert applies(**{key: glob})
    assert not applies(**{key: glob.rstrip("*") + "x"})
    assert not applies(**{key: "x" + glob.lstrip("*")})


@pytest.mark.parametrize("text", ["axcde", "abxde", "abcxe", "acbde", "abdce"])
def test_every_part_between_stars_is_there_and_in_order(text: str) -> None:
    assert matches_any(["a*b*c*d*e"], "a_b_c_d_e")
    assert not matches_any(["a*b*c*d*e"], text)


@pytest.mark.fault(233)
def test_all_keys_given_must_match_and_the_first_rule_applies() -> None:
    rules = number_rules(
        {"country": "IN", "region": "MH"},
        {"country": "IN", "number_type": "L*"},
        {"sid": "*"},
    )
    assert rules.first_match(FIELDS) is rules.rules[1]
    assert NumberRules().first_match(FIELDS) is None


def test_a_list_means_any_of_its_values() -> None:
    rule = NumberRule(1, "1", {"region": ("MH", "KA"), "country": ("SG", "I?")})
    assert NumberRules((rule,)).first_match(FIELDS) is rule


def test_the_rules_of_an_account_are_those_that_name_it_or_none() -> None:
    rules = number_rules({"account": "sup*"}, {"account": "SALES"}, {"sid": "*"})
    assert [rule.label for rule in rules.of_account("support").rules] == ["1", "3"]
    assert [rule.label for rule in rules.of_account("sales").rules] == ["2", "3"]
    everywhere = number_rules({"sid": "*"})
    assert everywhere.of_account("support") is everywhere


@pytest.mark.fault(238)
def test_a_glob_of_many_stars_ends_on_a_long_name() -> None:
    """Trying every place of every part would take longer than the universe has."""
    assert not matches_any(["*a" * 40 + "b"], "a" * 256)


@pytest.mark.fault(236)
@pytest.mark.parametrize(
    ("earlier", "later", "hidden"),
    [
        ({"sid": "*"}, {"region": "KA"}, False),
        ({"sid": "*"}, {"region": "KA", "sid": "a"}, True),
        ({"sid": "a"}, {"sid": "a"}, True),
        ({"sid": "a*"}, {"sid": "AB?*"}, True),
        ({"sid": "*b"}, {"sid": "*ab"}, True),
        ({"sid": "a?"}, {"sid": "a*"}, False),
        ({"sid": "a?"}, {"sid": "ab"}, True),
        ({"sid": "ab"}, {"sid": "a?"}, False),
        ({"sid": "*", "region": "KA"}, {"sid": "a"}, False),
        ({"account": "sup*"}, {"account": "support", "sid": "a"}, True),
    ],
)
def test_a_rule_hides_a_later_one_that_matches_nothing_else(
    earlier: dict[str, str], later: dict[str, str], hidden: bool
) -> None:
    first, second = number_rules(earlier, later).rules
    assert first.hides(second) is hidden
    assert list(NumberRules((first, second)).hidden()) == [(second, first)] * hidden


def test_a_rule_that_matches_only_part_of_a_later_one_does_not_hide_it() -> None:
    globs = [("a*",), ("ab", "c"), ("*",), ("ab", "c")]
    rules = [NumberRule(at, str(at), {"sid": sids}) for at, sids in enumerate(globs, 1)]
    hidden = [(later.position, by.position) for later, by in NumberRules((*rules,)).hidden()]
    assert hidden == [(4, 2)]
