"""`numbers --as-rules`: what it prints, loaded again, expects what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.cli.as_rules import rules_text
from exophone_exporter.config import loader
from exophone_exporter.config.number_rules import NONE
from exophone_exporter.exotel.model import ExoPhone
from exophone_exporter.exotel.text import clean_text
from exophone_exporter.inventory.expectations import Verdict, judge
from tests.lib.strategies import ANY_TEXT
from tests.lib.support import phone

ACCOUNTS = "accounts:\n" + "".join(
    f"  - {{name: {name}, sid: {name}, api_key: k, api_token: t}}\n" for name in ("one", "two")
)


def verdicts(listed: Mapping[str, Sequence[ExoPhone]]) -> list[Verdict]:
    """What the printed rules say of the numbers that they were made from."""
    text = rules_text(listed, name_accounts=True)
    loaded = loader.parse(text + ACCOUNTS, "rules", {})
    assert loaded.warnings == ()
    rules = {account.name: account.rules for account in loaded.accounts}
    return [judge(number, rules[name]) for name in listed for number in listed[name]]


FLOWS = st.sampled_from(["11", "22", "none", "3x", "é"])
URLS = FLOWS.map("http://my.exotel.in/a/exoml/start_voice/{}".format) | st.sampled_from(
    ["", "", None, "https://bot.example.com/a?b=#c", "HTTPS://x.example", "https://x.example/a b"]
)
WORDS = st.sampled_from(["Sales", "sales", "Del*hi", "", "1", "#: \"'", "Ünnecke", "\ufffe"])
NAMES = st.lists(WORDS, max_size=6).map(" ".join) | ANY_TEXT.map(clean_text)
PHONES = st.sampled_from(["", "+9180471901", "0804719", "+91XXXX30240"]) | st.from_regex(
    r"\+91[0-9]{10}", fullmatch=True
)
NUMBERS = st.lists(
    st.builds(
        phone,
        st.from_regex(r"[!-~]{1,8}", fullmatch=True),
        friendly_name=NAMES,
        phone_number=PHONES,
        voice_url=URLS,
        sms_url=URLS,
        sms_capable=st.booleans(),
    ),
    unique_by=lambda number: number.sid.lower().replace("*", "?"),
    max_size=30,
)


@given(NUMBERS, NUMBERS)
def test_printed_rules_find_no_problem_with_any_number(
    one: list[ExoPhone], two: list[ExoPhone]
) -> None:
    assert not any(verdict.has_problem for verdict in verdicts({"one": one, "two": two}))


SALES, BOT = "http://my.exotel.in/a/exoml/start_voice/11", "https://bot.example.com"
DESK = {"voice_url": SALES, "sms_url": ""}
LISTED = [
    phone("s1", friendly_name="Sales Delhi 1", phone_number="+911", **DESK),
    phone("s2", friendly_name="SALES Delhi 2", phone_number="+912", **DESK),
    phone("s3", friendly_name="Sales Pune 1", phone_number="+913", **DESK, sms_capable=False),
    phone("s4", friendly_name="Sales Pune 2", phone_number="+914", voice_url="", sms_url=""),
    phone("s5", friendly_name="Sales Bot 1", phone_number="+915", voice_url=BOT, sms_url=""),
    phone("s6", friendly_name="Sales Bot 2", phone_number="+916", voice_url=BOT, sms_url=""),
    phone("s7", friendly_name="Sales Bot 3", phone_number="+917", voice_url=BOT, sms_url=""),
    phone("out", friendly_name="Outbound", phone_number="+91XX", voice_url="", sms_url=""),
    phone("d1", friendly_name="Desk 1", voice_url="", sms_url=BOT),
    phone("d2", friendly_name="Desk 2", voice_url="", sms_url=BOT),
    phone("dumb", voice_capable=False, sms_url=None),
]
PRINTED = """\
# What each number does today. The first rule that matches a number applies.
# Put globs in place of lists where you can, add `owner: NAME`, and change what
# should not stay as it is.
numbers:
  - match:
      phone_number:
        - "+914"  # Sales Pune 2
    voice: none
    sms: none
  - match:
      sid:
        - "out"  # Outbound
    voice: none
    sms: none
  - match:
      friendly_name:
        - "Sales Bot *"
    voice: "https://bot.example.com"
    sms: none
  - match:
      friendly_name:
        - "Sales *"
    voice: 11
    sms: none
  - match:
      friendly_name:
        - "Desk *"
    voice: none
    sms: "https://bot.example.com"
"""


def test_rules_are_names_in_common_and_their_exceptions() -> None:
    assert rules_text({"one": LISTED}, name_accounts=False) == PRINTED
    named = rules_text({"one": LISTED[-2:]}, name_accounts=True)
    assert '  - match:\n      account: "one"\n      sid:\n' in named
    assert rules_text({"one": LISTED[-1:]}, name_accounts=False) == "# No rule is needed.\n"
    loaded = [verdict.rule and verdict.rule.voice for verdict in verdicts({"one": LISTED})]
    assert loaded[6:] == [(BOT,), NONE, NONE, NONE, None]
