"""`once`, `numbers`, `number` and `check-config`: what they print, and how they end."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from exophone_exporter.cli import output
from exophone_exporter.config.number_rules import NumberRule, NumberRules
from exophone_exporter.inventory.expectations import judge
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.paths import ROOT
from tests.lib.processes import Ended, config_file, run
from tests.lib.support import phone

Call = Callable[..., Ended]

# The sample of the vendor's page, byte for byte in its values.
DETAIL = b"""{ "sid": "9eeafc8ab479a386dc95f854f9d7cd8a", "date_created": "2016-11-09 13:48:12",
"date_updated": "2017-03-30 14:19:02", "account_sid": "Exotel", "friendly_name": "XXXXX30240",
"phone_number": "+91XXXX30240", "capabilities": { "voice": true, "sms": true }, "country": "IN",
"region": "WB", "one_time_price": "0.000000", "rental_price": "499.000000",
"incoming_rate": "0.000000", "incoming_pulse": "60", "currency": "INR",
"number_type": "Landline", "vanity_number": false,
"voice_url": "https://my.exotel.in/Exotel/exoml/start_voice/12XX48",
"sms_url": "https://my.exotel.in/Exotel/exoml/start_sms/22XX39",
"uri": "/v2_beta/Accounts/Exotel/IncomingPhoneNumbers/9eeafc8ab479a386dc95f854f9d7cd8a" }"""
DETAIL_SID = "9eeafc8ab479a386dc95f854f9d7cd8a"
DETAIL_LINES = """\
account                 acme
sid                     9eeafc8ab479a386dc95f854f9d7cd8a
phone_number            +91XXXX30240
friendly_name           XXXXX30240
account_sid             Exotel
country                 IN
region                  WB (West Bengal)
number_type             Landline
vanity_number           false
voice_capable           true
sms_capable             true
voice_flow_id           12XX48
sms_flow_id             22XX39
voice_url               https://my.exotel.in/Exotel/exoml/start_voice/12XX48
sms_url                 https://my.exotel.in/Exotel/exoml/start_sms/22XX39
currency                INR
rental_price            ₹499.00
one_time_price          ₹0.00
incoming_rate           ₹0.00
incoming_pulse_seconds  60
date_created            2016-11-09T08:18:12Z
date_updated            2017-03-30T08:49:02Z
uri                     /v2_beta/Accounts/Exotel/IncomingPhoneNumbers/9eeafc8ab479a386dc95f854f9d7cd8a
problem
expected                any
owner
""".splitlines()  # noqa: E501 - as it is printed


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """Two accounts: 60 numbers of which 3 lack a flow, and 3 attached numbers."""
    with Simulator(World(make_account("acme", 60), make_account("beta", 3))) as running:
        yield running


@pytest.fixture
def call(tmp_path: Path, sim: Simulator) -> Call:
    file = str(config_file(tmp_path, sim))
    return lambda *words, **options: run(*words, "--config.file", file, **options)


def without_flow(sim: Simulator) -> set[str]:
    return {
        number["sid"]
        for account in sim.world.accounts.values()
        for number in account.numbers
        for flow in ("voice", "sms")
        if number["capabilities"][flow] and number[f"{flow}_url"] is None
    }


def with_balances(tmp_path: Path, sim: Simulator) -> str:
    """A configuration in which the account beta is asked for its balance, and gets no answer."""
    sim.world.accounts["acme"].balance.amount = Decimal("1543.75")
    sim.fail(Fault(403, endpoint="balance", account_sid="beta", times=None))
    enabled = "balance: {enabled: true}"
    return str(config_file(tmp_path, sim, acme=enabled, beta=enabled))


class TestOnce:
    @pytest.mark.fault(123)
    def test_stdout_has_only_metrics_and_stderr_only_logs(self, call: Call) -> None:
        ended = call("once", "--log.level=debug", "--log.format=json")
        assert ended.code == 0
        assert all(json.loads(line)["level"] for line in ended.stderr.splitlines())
        lines = ended.stdout.splitlines()
        assert {'exophone_up{account="acme"} 1.0', 'exophone_up{account="beta"} 1.0'} <= set(lines)
        assert all(
            line.startswith(("# HELP exophone_", "# TYPE exophone_", "exophone_")) for line in lines
        )

    @pytest.mark.fault(123)
    def test_it_shows_what_it_polled_however_long_the_rest_took(
        self, tmp_path: Path, sim: Simulator
    ) -> None:
        sim.fail(Fault(status=200, body=DETAIL, delay_seconds=2, account_sid="acme"))
        file = config_file(tmp_path, sim, "interval: 1s, deadline: 1s, stale_after: 1s")
        ended = run("once", "--config.file", str(file))
        assert 'exophone_up{account="beta"} 1.0' in ended.stdout
        assert ended.stdout.count('exophone_number_info{account="beta"') == 3

    @pytest.mark.fault(252)
    def test_a_balance_that_is_not_known_is_a_line_and_no_failure(
        self, tmp_path: Path, sim: Simulator
    ) -> None:
        ended = run("once", "--config.file", with_balances(tmp_path, sim))
        assert ended.code == 0
        lines = {
            line for line in ended.stdout.splitlines() if "_balance{" in line or "_up{" in line
        }
        assert lines == {
            'exophone_up{account="acme"} 1.0',
            'exophone_up{account="beta"} 1.0',
            'exophone_account_balance{account="acme",currency="INR"} 1543.75',
            'exophone_account_balance_up{account="acme"} 1.0',
            'exophone_account_balance_up{account="beta"} 0.0',
        }
        (line,) = ended.stderr.splitlines()
        assert line.startswith(
            "exophone-exporter: beta: the balance is not known: 403: the account"
        )

    @pytest.mark.fault(123)
    def test_a_failure_is_in_the_metrics_and_on_stderr(self, call: Call, sim: Simulator) -> None:
        sim.fail(Fault(status=402, account_sid="acme", times=None))
        ended = call("once")
        assert ended.code == 1
        assert 'exophone_up{account="acme"} 0.0' in ended.stdout.splitlines()
        assert 'exophone_up{account="beta"} 1.0' in ended.stdout.splitlines()
        assert ended.stderr.startswith("exophone-exporter: acme: 402: ")
        assert ended.stderr.count("\n") == 1


class TestNumbers:
    def test_the_table_has_every_number_on_one_line(self, call: Call, sim: Simulator) -> None:
        """In a pipe, however long its name is."""
        long_name = "Support " * 30
        sim.world.accounts["acme"].numbers[0]["friendly_name"] = long_name
        ended = call("numbers")
        assert (ended.code, ended.stderr) == (0, "")
        head, *lines, empty, last = ended.stdout.splitlines()
        titles = "Account Number Name Circle Type Voice SMS Rental Problem Expected"
        assert head.split() == titles.split()
        assert len(lines) == 63
        assert long_name.strip() in lines[0]
        assert (empty, last) == ("", "3 of 63 numbers have a problem; ₹499.00 a month idle")

    def test_json_and_csv_have_every_number_and_field(self, call: Call, sim: Simulator) -> None:
        """The same records in both; in CSV truth is `true`, and what is absent is empty."""
        sids = [n["sid"] for a in sim.world.accounts.values() for n in a.numbers]
        as_json, as_csv = call("numbers", "--format=json"), call("numbers", "--format=csv")
        assert (as_json.code, as_csv.code) == (0, 0)
        records = json.loads(as_json.stdout)
        rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
        assert [record["sid"] for record in records] == sids
        assert [row["sid"] for row in rows] == sids
        assert list(rows[0]) == list(records[0]) == [line.split()[0] for line in DETAIL_LINES]
        assert {row["voice_capable"] for row in rows} == {"true"}
        assert {record["voice_capable"] for record in records} == {True}

    @pytest.mark.parametrize(
        ("name", "cell"),
        [
            ('=HYPERLINK("http://x.example","y")', '\'=HYPERLINK("http://x.example","y")'),
            ("@SUM(1)", "'@SUM(1)"),
            ("-2+3", "'-2+3"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("-12.5", "-12.5"),
            ("Sales = 1", "Sales = 1"),
        ],
    )
    def test_csv_holds_no_formula(self, call: Call, sim: Simulator, name: str, cell: str) -> None:
        number = sim.world.accounts["beta"].numbers[0]
        number["friendly_name"] = name
        ended = call("numbers", "--account=beta", "--format=csv")
        row = next(csv.DictReader(io.StringIO(ended.stdout)))
        assert (row["friendly_name"], row["phone_number"]) == (cell, number["phone_number"])

    def test_unattached_lists_only_numbers_without_a_flow(self, call: Call, sim: Simulator) -> None:
        ended = call("numbers", "--unattached", "--format=json")
        assert {record["sid"] for record in json.loads(ended.stdout)} == without_flow(sim)
        assert len(without_flow(sim)) == 3

    def test_account_queries_only_this_one_or_is_a_usage_error(
        self, call: Call, sim: Simulator
    ) -> None:
        ended = call("numbers", "--account=beta")
        assert ended.code == 0
        assert len(ended.stdout.splitlines()) == 1 + 3 + 2
        assert "Account" not in ended.stdout
        assert {request.account_sid for request in sim.requests} == {"beta"}
        unknown = call("numbers", "--account=nosuch")
        assert (unknown.code, unknown.stdout) == (2, "")
        assert unknown.stderr == (
            "exophone-exporter: --account=nosuch: unknown account; configured: acme, beta\n"
        )
        assert len(sim.requests) == 1

    @pytest.mark.parametrize(
        ("words", "stdout", "stderr"),
        [
            ([], "", "exophone-exporter: no numbers\n"),
            (["--unattached"], "", "exophone-exporter: no unattached numbers\n"),
            (["--problems"], "", "exophone-exporter: no numbers with a problem\n"),
            (["--format=json"], "[]\n", ""),
        ],
    )
    def test_an_account_without_numbers_is_a_success(
        self, call: Call, sim: Simulator, words: list[str], stdout: str, stderr: str
    ) -> None:
        for account in sim.world.accounts.values():
            account.numbers.clear()
        ended = call("numbers", *words)
        assert (ended.code, ended.stdout, ended.stderr) == (0, stdout, stderr)

    def test_a_failure_is_not_reported_as_an_empty_list(self, call: Call, sim: Simulator) -> None:
        sim.fail(Fault(status=403, times=None))
        ended = call("numbers")
        assert (ended.code, ended.stdout) == (1, "")
        assert "acme: 403" in ended.stderr
        assert "beta: 403" in ended.stderr
        assert ended.stderr.count("\n") == 2

    def test_a_locale_without_the_rupee_sign_gets_it_escaped(self, call: Call) -> None:
        ended = call("numbers", env={"PYTHONIOENCODING": "ascii"})
        assert ended.code == 0
        assert "\\u20b9499.00" in ended.stdout

    @pytest.mark.fault(214)
    @pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-16"}])
    @pytest.mark.parametrize("form", ["json", "csv"])
    def test_programs_get_utf_8_whatever_the_locale(
        self, call: Call, sim: Simulator, env: dict[str, str], form: str
    ) -> None:
        name = "Café 📞 \ud83d"  # and half a pair
        sim.world.accounts["beta"].numbers[0]["friendly_name"] = name
        ended = call("numbers", "--account=beta", f"--format={form}", env=env, encoding="utf-8")
        rows = csv.DictReader(io.StringIO(ended.stdout))
        (first, *_) = json.loads(ended.stdout) if form == "json" else rows
        assert first["friendly_name"] == "Café 📞 \ufffd"


@pytest.mark.parametrize("flag", ["--problems", "--unattached", "--format=json"])
def test_rules_for_some_numbers_only_are_refused(call: Call, flag: str) -> None:
    refused = call("numbers", "--as-rules", flag)
    assert (refused.code, refused.stdout) == (2, "")
    assert "--as-rules is about all numbers; omit" in refused.stderr


# Commands, gaps, and what depends on the port or on the fire drill.
STORY = re.compile(r"$|\.\.\.|\$ |exophone|curl|cat |acme|\+91\d+ \(|Expect|problem|expected|owner")


def test_the_story_in_the_docs_is_what_the_program_prints(tmp_path: Path) -> None:
    """docs/number-rules.md: its rules, and each line of output that it shows."""
    text = (ROOT / "docs" / "number-rules.md").read_text("utf-8")
    (rules,) = re.findall(r"<!-- tests: rules -->\n```yaml\n(.*?)```", text, re.DOTALL)
    shown = re.findall(r"```(?:console\n\$ |yaml\nnumbers:\n  - match:\n)(.*?)```", text, re.DOTALL)
    with Simulator(World(make_account("acme", 400))) as sim:
        before = config_file(tmp_path, sim)
        with_rules = tmp_path / "exophone.yaml"
        with_rules.write_text(before.read_text("utf-8") + rules, "utf-8")
        today = run("numbers", "--as-rules", "--config.file", str(before)).stdout
        with_today = tmp_path / "today.yaml"
        with_today.write_text(before.read_text("utf-8") + today, "utf-8")
        printed = today + "".join(
            run(*words, "--config.file", str(file)).stdout
            for words in (["numbers", "--problems"], ["check-config", "--live"])
            for file in (before, with_today, with_rules)
        )
    lines = printed.splitlines()
    told = [line for block in shown for line in block.splitlines() if not STORY.match(line)]
    assert len(told) > 30
    assert [line for line in told if line not in lines] == []


LONG_NAME = "Customers of the North-West who call at night"


class _Screen(io.TextIOWrapper):
    """A stdout that says it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        self.seek(0)
        return re.sub(r"\x1b\[[0-9;]*m", "", self.read()).splitlines()


@pytest.mark.parametrize(
    ("width", "wrong", "titles", "name"),
    [
        (170, "", "Account Number Name Circle Type Voice SMS Rental Problem Expected", LONG_NAME),
        (
            110,
            "",
            "Account Number Name Voice SMS Rental Problem Expected",
            "Customers of the North-West who ca…",
        ),
        (80, "", "Account Number Name Voice SMS Problem", "Customers of the North-…"),
        (40, "", "Account Number Name Voice SMS Problem", "Customers o…"),
        (80, "44", "Account Number Name Problem Expected", "Customers of the North-West w…"),
    ],
)
def test_a_narrow_terminal_keeps_number_name_and_problem(
    width: int, wrong: str, titles: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number and problem are never cut; first other columns go, then the name shrinks.

    Where every number has a problem, the flows go before what is expected.
    """
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    screen = _Screen()
    monkeypatch.setattr("sys.stdout", screen)
    rules = NumberRules((NumberRule(1, "1", {"sid": ("sid-2",)}, sms=(wrong,)),) * bool(wrong))
    listed = [
        ("main", phone(friendly_name=LONG_NAME, region="UE", voice_url="")),
        ("side", phone("sid-2")),
    ]
    output.print_numbers([(*entry, judge(entry[1], rules)) for entry in listed], "the end")
    head, first, second, *_, last = screen.lines()
    assert head.split() == titles.split()
    assert f" {name} " in first
    assert "+912248901111" in first
    assert "voice missing" in first
    assert ("sms wrong (22)" in second) is bool(wrong)
    assert last == "the end"
    if width >= 62:
        assert max(len(line.rstrip()) for line in (head, first, second)) <= width


class TestNumber:
    def test_the_vendors_sample_as_a_table_and_as_json(self, call: Call, sim: Simulator) -> None:
        """Every documented field: times in UTC, money as its country writes it, exact decimals."""
        sim.fail(Fault(status=200, body=DETAIL, endpoint="detail", times=None))
        ended = call("number", DETAIL_SID)
        assert (ended.code, ended.stderr) == (0, "")
        assert ended.stdout.splitlines() == DETAIL_LINES
        assert [request.path.rpartition("/")[2] for request in sim.requests] == [DETAIL_SID]
        as_table = {line[:24].rstrip(): line[24:] for line in DETAIL_LINES}
        assert json.loads(call("number", DETAIL_SID, "--format=json").stdout) == as_table | {
            "region": "WB",
            "vanity_number": False,
            "voice_capable": True,
            "sms_capable": True,
            "rental_price": "499.000000",
            "one_time_price": "0.000000",
            "incoming_rate": "0.000000",
        }

    def test_the_account_that_has_it_is_found(self, call: Call, sim: Simulator) -> None:
        """Although the first one fails."""
        sid = sim.world.accounts["beta"].numbers[0]["sid"]
        sim.fail(Fault(status=403, account_sid="acme", times=None))
        ended = call("number", sid, "--format=json")
        assert ended.code == 0
        assert json.loads(ended.stdout)["account"] == "beta"

    def test_an_unknown_sid_is_reported_with_the_accounts_that_lack_it(
        self, call: Call, sim: Simulator
    ) -> None:
        """The number may be in an account that could not be queried."""
        ended = call("number", "nosuch")
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr == "exophone-exporter: no number with the SID `nosuch` in acme, beta\n"
        sim.fail(Fault(status=403, account_sid="acme", times=None))
        ended = call("number", "nosuch")
        assert ended.code == 1
        assert "exophone-exporter: acme: 403" in ended.stderr
        assert ended.stderr.endswith("no number with the SID `nosuch` in beta\n")

    @pytest.mark.parametrize("form", ["+91 {} {}", "0{}-{}", "{}{}", "0091{}{}"])
    def test_a_phone_number_is_looked_up_in_the_lists(
        self, call: Call, sim: Simulator, form: str
    ) -> None:
        """Of all accounts, whatever its SID is; then the number itself is fetched."""
        number = sim.world.accounts["beta"].numbers[1]
        number["sid"] = "a-sid-of-letters"
        national = number["phone_number"].removeprefix("+91")
        ended = call("number", form.format(national[:3], national[3:]), "--format=json")
        assert (ended.code, ended.stderr) == (0, "")
        assert json.loads(ended.stdout)["sid"] == "a-sid-of-letters"
        assert sim.requests[-1].path.endswith("/a-sid-of-letters")

    def test_a_phone_number_of_no_account_or_of_two_is_an_error(
        self, call: Call, sim: Simulator
    ) -> None:
        ended = call("number", "+91 80 0000 0000")
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr == (
            "exophone-exporter: no number matches `+91 80 0000 0000` in acme, beta\n"
        )
        acme, beta = (account.numbers[0] for account in sim.world.accounts.values())
        acme["phone_number"] = beta["phone_number"] = "+918000000000"
        ended = call("number", "+91 80 0000 0000")
        assert ended.code == 1
        assert ended.stderr == (
            "exophone-exporter: several numbers match `+91 80 0000 0000`:"
            f" {acme['sid']} in acme, {beta['sid']} in beta; use a SID or --account\n"
        )
        assert call("number", "08000000000", "--account=beta").code == 0
        sim.fail(Fault(status=403, account_sid="acme", times=None))
        assert call("number", "+91 80 0000 0000").code == 0
        sim.fail(Fault(status=403, account_sid="beta", times=None))
        failed = call("number", "+91 80 0000 0000")
        assert (failed.stderr.count(": 403"), failed.stderr.count("\n")) == (2, 2)


@pytest.mark.fault(123)
@pytest.mark.parametrize(
    "words",
    [["once"], ["numbers"], ["number", "nosuch"], ["check-config", "--live"]],
    ids=lambda words: words[0],
)
def test_two_names_for_one_account_share_its_request_limit(
    words: list[str], tmp_path: Path, sim: Simulator
) -> None:
    file = tmp_path / "exophone.yml"
    entry = f"sid: beta, base_url: {sim.url}, api_key: beta-key, api_token: beta-token"
    file.write_text(
        "poll: {interval: 1m, requests_per_minute: 1, deadline: 5s}\n"
        f"accounts: [{{name: one, {entry}}}, {{name: two, {entry}}}]\n",
        encoding="utf-8",
    )
    ended = run(*words, "--config.file", str(file))
    assert ended.code == 1
    assert "the budget of 1 requests a minute is spent" in ended.stdout + ended.stderr
    assert len(sim.requests) == 1


class TestCheckConfig:
    @pytest.mark.fault(123)
    def test_offline_it_opens_no_socket(self, call: Call, sim: Simulator, tmp_path: Path) -> None:
        """An audit hook, set when the interpreter starts, sees every socket."""
        hook = "import sys\ndef see(event, args):\n  if event.startswith('socket.'): print(event)\n"
        (tmp_path / "sitecustomize.py").write_text(
            hook + "sys.addaudithook(see)\n", encoding="utf-8"
        )
        env = {"PYTHONPATH": f"{tmp_path}:{Path(output.__file__).parents[1]}"}
        web = tmp_path / "web.yml"
        web.touch()
        ended = call("check-config", "--web.config.file", str(web), env=env)
        assert (ended.code, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[0].endswith("exophone.yml: valid, 2 accounts")
        assert f"acme at {sim.url}, every 1m to 5m" in ended.stdout
        assert "socket." not in ended.stdout
        assert sim.requests == []
        assert "socket.connect" in call("check-config", "--live", env=env).stdout

    @pytest.mark.fault(123)
    def test_a_web_configuration_is_checked_too_or_alone(self, call: Call, tmp_path: Path) -> None:
        """With the problems of both files, and of the certificates that it names."""
        web = tmp_path / "web.yml"
        web.write_text("basic_auth_users:\n", encoding="utf-8")
        alone = run("check-config", "--web.config.file", str(web))
        assert (alone.code, alone.stdout) == (0, f"{web}: valid, no TLS, 0 users\n")
        both = call("check-config", "--web.config.file", str(web))
        assert both.code == 0
        assert "exophone.yml: valid, 2 accounts\n" in both.stdout
        assert both.stdout.endswith(alone.stdout)
        web.write_text("tls_server_config: {cert_file: a, key_file: b}\n", encoding="utf-8")
        refused = run("check-config", "nowhere.yml", "--web.config.file", str(web))
        assert (refused.code, refused.stdout) == (2, "")
        first, *located = refused.stderr.splitlines()
        assert first.startswith("exophone-exporter: nowhere.yml: ")
        assert [line.split(" ")[0] for line in located] == [f"{web}:1:"] * 2  # editors link these

    @pytest.mark.fault(262)
    def test_without_secrets_nothing_that_the_files_name_is_read(self, tmp_path: Path) -> None:
        """As in a Git hook or a pipeline, which has the files and nothing else."""
        file, web = tmp_path / "exophone.yml", tmp_path / "web.yml"
        file.write_text(
            "accounts:\n- {name: a, sid: b, api_key_file: gone, api_token_env: GONE, ca_file: gone,"
            " per_number: {pseudonym_key_file: gone}}\n",
            encoding="utf-8",
        )
        web.write_text("tls_server_config: {cert_file: gone, key_file: gone}\n", encoding="utf-8")
        words = ["check-config", str(file), "--web.config.file", str(web)]
        assert run(*words).stderr.count("\n") == 6
        ended = run(*words, "--no-secrets")
        assert (ended.code, ended.stderr) == (0, "")
        assert f"{file}: valid, 1 account; no secret was read\n" in ended.stdout
        assert f"{web}: valid, TLS, 0 users\n" in ended.stdout
        names = ("EXOTEL_ACCOUNT_SID", "EXOTEL_API_KEY", "EXOTEL_API_TOKEN_FILE")
        ended = run("check-config", "--no-secrets", env=dict.fromkeys(names, "gone"))
        assert ended.stdout.startswith("environment: valid, 1 account; no secret was read\n")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("api_key: ''", "api_key: is empty"),
            ("api_key_file: gone, api_key_env: X", "`api_key_file` and `api_key_env` are set"),
            ("api_key_env: a-b", "must be the name of an environment variable"),
        ],
    )
    def test_without_secrets_the_file_itself_is_checked(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        file = tmp_path / "exophone.yml"
        file.write_text(f"accounts: [{{name: a, sid: b, api_token_file: gone, {text}}}]\n", "utf-8")
        ended = run("check-config", "--no-secrets", str(file))
        assert (ended.code, ended.stderr.count("\n")) == (2, 1)
        assert message in ended.stderr
        assert "omit --no-secrets" in run("check-config", "--live", "--no-secrets").stderr

    def test_two_files_for_the_accounts_are_refused(self, call: Call) -> None:
        refused = call("check-config", "other.yml")
        assert refused.code == 2
        assert refused.stderr == (
            "exophone-exporter: give the configuration file as FILE or with --config.file,"
            " not both\n"
        )

    @pytest.mark.fault(123)
    def test_live_it_fetches_one_page_of_each_account(self, call: Call, sim: Simulator) -> None:
        ended = call("check-config", "--live")
        assert (ended.code, ended.stderr) == (0, "")
        assert "acme: OK, 50 numbers on the first page\n" in ended.stdout
        assert "beta: OK, 3 numbers on the first page\n" in ended.stdout
        assert [request.account_sid for request in sim.requests] == ["acme", "beta"]

    @pytest.mark.fault(252)
    def test_live_it_says_whether_the_key_may_read_the_balance(
        self, tmp_path: Path, sim: Simulator
    ) -> None:
        ended = run("check-config", "--live", with_balances(tmp_path, sim))
        assert (ended.code, ended.stderr) == (0, "")
        assert (
            "acme: OK, 50 numbers on the first page; the balance is 1543.75 INR\n" in ended.stdout
        )
        refused = (
            "beta: OK, 3 numbers on the first page; the balance cannot be read: 403: the account"
        )
        assert refused in ended.stdout

    def test_live_with_rules_it_shows_what_each_one_matches(
        self, call: Call, sim: Simulator, tmp_path: Path
    ) -> None:
        """Of all pages; a rule that matches nothing is named, once every account is known."""
        config_file(tmp_path, sim)
        with (tmp_path / "exophone.yml").open("a", encoding="utf-8") as file:
            file.write(
                "numbers:\n  - {match: {account: acme, region: KA}, voice: [none], name: South}\n"
                '  - {match: {sid: ["nobody", "nothing"]}}\n'
            )
        karnataka = [n for n in sim.world.accounts["acme"].numbers if n["region"] == "KA"]
        ended = call("check-config", "--live")
        assert "acme: OK, 60 numbers\nbeta: OK, 3 numbers\n" in ended.stdout
        assert [line.split() for line in ended.stdout.splitlines()[-4:]] == [
            ["Rule", "Match", "Numbers", "Problems"],
            f"South account acme, region KA {len(karnataka)} {len(karnataka)}".split(),
            ["2", "sid", "nobody", "or", "nothing", "0", "0"],
            f"no rule {63 - len(karnataka)} 3".split(),
        ]
        assert ended.stderr == "exophone-exporter: warning: rule 2 matches no number\n"
        assert ended.code == 0
        sim.fail(Fault(status=403, account_sid="beta", times=None))
        ended = call("check-config", "--live")
        assert (ended.code, ended.stderr) == (1, "")
        assert ended.stdout.splitlines()[-2].split() == [
            "2",
            "sid",
            "nobody",
            "or",
            "nothing",
            "?",
            "0",
        ]

    @pytest.mark.fault(123)
    def test_live_a_wrong_key_is_a_failure_that_hints_at_the_region(
        self, call: Call, sim: Simulator
    ) -> None:
        """The other account is queried all the same."""
        sim.world.accounts["acme"].api_key = "rotated"
        ended = call("check-config", "--live")
        assert ended.code == 1
        assert "acme: failed (auth): 401" in ended.stdout
        assert "region" in ended.stdout
        assert "beta: OK" in ended.stdout

    def test_live_a_refused_connection_names_the_host(
        self, call: Call, sim: Simulator, tmp_path: Path
    ) -> None:
        del sim.world.accounts["beta"]  # each would be waited for, one after the other
        config_file(tmp_path, sim)
        sim.stop()
        ended = call("check-config", "--live")
        assert ended.code == 1
        assert re.search(r"acme: failed \(connect\): .*127\.0\.0\.1.*refused", ended.stdout)
        assert "proxy_url" not in ended.stderr
        for words in (["check-config", "--live"], ["numbers"]):
            assert (
                "HTTPS_PROXY is not used; set proxy_url"
                in call(*words, env={"HTTPS_PROXY": "http://proxy:3128"}).stderr
            )
