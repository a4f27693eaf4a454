"""`once`, `numbers`, `number` and `check-config`: what they print, and how they end."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exophone_exporter.cli import output
from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.processes import config_file, run
from tests.lib.support import phone

if TYPE_CHECKING:
    from collections.abc import Iterator

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
DETAIL_TABLE = """\
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
"""  # noqa: E501 - as it is printed
DETAIL_JSON = {
    "account": "acme",
    "sid": "9eeafc8ab479a386dc95f854f9d7cd8a",
    "phone_number": "+91XXXX30240",
    "friendly_name": "XXXXX30240",
    "account_sid": "Exotel",
    "country": "IN",
    "region": "WB",
    "number_type": "Landline",
    "vanity_number": False,
    "voice_capable": True,
    "sms_capable": True,
    "voice_flow_id": "12XX48",
    "sms_flow_id": "22XX39",
    "voice_url": "https://my.exotel.in/Exotel/exoml/start_voice/12XX48",
    "sms_url": "https://my.exotel.in/Exotel/exoml/start_sms/22XX39",
    "currency": "INR",
    "rental_price": "499.000000",
    "one_time_price": "0.000000",
    "incoming_rate": "0.000000",
    "incoming_pulse_seconds": "60",
    "date_created": "2016-11-09T08:18:12Z",
    "date_updated": "2017-03-30T08:49:02Z",
    "uri": "/v2_beta/Accounts/Exotel/IncomingPhoneNumbers/9eeafc8ab479a386dc95f854f9d7cd8a",
}


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """Two accounts: 60 numbers of which 3 lack a flow, and 3 that lack none."""
    with Simulator(World(make_account("acme", 60), make_account("beta", 3))) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, sim: Simulator) -> str:
    return str(config_file(tmp_path, sim))


def without_flow(sim: Simulator) -> set[str]:
    """The sids that the world says are unattached on a channel they are capable of."""
    return {
        number["sid"]
        for account in sim.world.accounts.values()
        for number in account.numbers
        for flow in ("voice", "sms")
        if number["capabilities"][flow] and number[f"{flow}_url"] is None
    }


class TestOnce:
    """One poll as exposition text."""

    @pytest.mark.fault(123)
    def test_metrics_alone_are_on_stdout(self, config: str) -> None:
        """Of both accounts, and none of the process, which whoever collects them has already."""
        ended = run("once", "--config.file", config)
        assert (ended.code, ended.stderr) == (0, "")
        lines = ended.stdout.splitlines()
        assert 'exophone_up{account="acme"} 1.0' in lines
        assert 'exophone_up{account="beta"} 1.0' in lines
        names = {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
        assert all(name.startswith("exophone_") for name in names)
        assert all(line.startswith(("#", "exophone_")) for line in lines)

    @pytest.mark.fault(123)
    def test_a_failure_is_in_the_metrics_and_on_stderr(self, config: str, sim: Simulator) -> None:
        """Exit 1; the other account is there all the same."""
        sim.fail(Fault(status=402, account_sid="acme", times=None))
        ended = run("once", "--config.file", config)
        assert ended.code == 1
        assert 'exophone_up{account="acme"} 0.0' in ended.stdout.splitlines()
        assert 'exophone_up{account="beta"} 1.0' in ended.stdout.splitlines()
        assert ended.stderr.startswith("exophone-exporter: acme: 402: ")
        assert ended.stderr.count("\n") == 1

    @pytest.mark.fault(123)
    def test_logs_are_on_stderr(self, config: str) -> None:
        """Even at debug level no line of them is among the metrics."""
        ended = run("once", "--config.file", config, "--log.level=debug", "--log.format=json")
        assert ended.code == 0
        assert "level" not in ended.stdout
        assert all(json.loads(line)["level"] for line in ended.stderr.splitlines())

    def test_a_file_is_replaced_as_a_whole(self, config: str, tmp_path: Path) -> None:
        """A new file of mode 0644, whatever the umask, and no other file next to it."""
        folder = tmp_path / "textfiles"
        folder.mkdir()
        output = folder / "exophone.prom"
        output.write_text("old", encoding="utf-8")
        with output.open(encoding="utf-8") as reader:
            ended = run("once", "--config.file", config, "--output", str(output), umask=0o077)
            assert reader.read() == "old"
        assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
        assert stat.S_IMODE(output.stat().st_mode) == 0o644
        assert 'exophone_up{account="acme"} 1.0\n' in output.read_text(encoding="utf-8")
        assert list(folder.iterdir()) == [output]

    @pytest.mark.parametrize(
        ("output", "reason"),
        [
            pytest.param("gone/exophone.prom", "No such file or directory", id="no-directory"),
            pytest.param("taken", "Is a directory", id="is-a-directory"),
        ],
    )
    def test_a_place_that_cannot_be_written_is_one_line(
        self, config: str, tmp_path: Path, output: str, reason: str
    ) -> None:
        """Exit 1, and no temporary file is left."""
        (tmp_path / "taken").mkdir()
        before = set(tmp_path.iterdir())
        place = tmp_path / output
        ended = run("once", "--config.file", config, "--output", str(place))
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr == f"exophone-exporter: cannot write {place}: {reason}\n"
        assert set(tmp_path.iterdir()) == before


class TestNumbers:
    """The list of numbers."""

    def test_the_table_holds_every_number_in_whole_lines(self, config: str, sim: Simulator) -> None:
        """In a pipe a line is a number, however long its name is."""
        long_name = "Support " * 30
        sim.world.accounts["acme"].numbers[0]["friendly_name"] = long_name
        ended = run("numbers", "--config.file", config)
        assert (ended.code, ended.stderr) == (0, "")
        head, *lines = ended.stdout.splitlines()
        titles = ["Account", "Number", "Name", "Circle", "Type", "Voice", "SMS", "Rental"]
        assert head.split() == titles
        assert len(lines) == 63
        assert long_name.strip() in lines[0]

    def test_json_and_csv_hold_every_number_and_field(self, config: str, sim: Simulator) -> None:
        """The same records in both; truth is `true`, and what is absent is empty in CSV."""
        sids = [n["sid"] for a in sim.world.accounts.values() for n in a.numbers]
        as_json = run("numbers", "--config.file", config, "--format=json")
        as_csv = run("numbers", "--config.file", config, "--format=csv")
        assert (as_json.code, as_csv.code) == (0, 0)
        records = json.loads(as_json.stdout)
        rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
        assert [record["sid"] for record in records] == sids
        assert [row["sid"] for row in rows] == sids
        assert list(rows[0]) == list(DETAIL_JSON) == list(records[0])
        assert {row["voice_capable"] for row in rows} == {"true"}
        assert {record["voice_capable"] for record in records} == {True}

    def test_unattached_numbers_alone(self, config: str, sim: Simulator) -> None:
        """Those that lack a flow on a channel they are capable of."""
        ended = run("numbers", "--config.file", config, "--unattached", "--format=json")
        assert {record["sid"] for record in json.loads(ended.stdout)} == without_flow(sim)
        assert len(without_flow(sim)) == 3

    def test_one_account_alone_is_asked(self, config: str, sim: Simulator) -> None:
        """The other sees no request, and the table has no column for it."""
        ended = run("numbers", "--config.file", config, "--account=beta")
        assert ended.code == 0
        assert len(ended.stdout.splitlines()) == 1 + 3
        assert "Account" not in ended.stdout
        assert {request.account_sid for request in sim.requests} == {"beta"}

    def test_an_unknown_account_is_named_with_those_there_are(
        self, config: str, sim: Simulator
    ) -> None:
        """Exit 2, and nothing is asked."""
        ended = run("numbers", "--config.file", config, "--account=nosuch")
        assert (ended.code, ended.stdout) == (2, "")
        assert ended.stderr == (
            "exophone-exporter: --account=nosuch: unknown account; configured: acme, beta\n"
        )
        assert sim.requests == []

    @pytest.mark.parametrize(
        ("words", "stdout", "stderr"),
        [
            pytest.param((), "", "exophone-exporter: no numbers\n", id="table"),
            pytest.param(
                ("--unattached",), "", "exophone-exporter: no unattached numbers\n", id="filter"
            ),
            pytest.param(("--format=json",), "[]\n", "", id="json"),
        ],
    )
    def test_no_numbers_is_no_failure(
        self, config: str, sim: Simulator, words: tuple[str, ...], stdout: str, stderr: str
    ) -> None:
        """An account may be empty: exit 0, with a message."""
        for account in sim.world.accounts.values():
            account.numbers.clear()
        ended = run("numbers", "--config.file", config, *words)
        assert (ended.code, ended.stdout, ended.stderr) == (0, stdout, stderr)

    def test_a_failure_is_not_called_an_empty_list(self, config: str, sim: Simulator) -> None:
        """Exit 1, one line for each account with its reason, and no claim about numbers."""
        sim.fail(Fault(status=403, times=None))
        ended = run("numbers", "--config.file", config)
        assert (ended.code, ended.stdout) == (1, "")
        assert "acme: 403" in ended.stderr
        assert "beta: 403" in ended.stderr
        assert ended.stderr.count("\n") == 2

    def test_a_locale_without_the_rupee_sign_gets_it_escaped(self, config: str) -> None:
        """A crash would be worse."""
        env = {"PYTHONIOENCODING": "ascii"}
        ended = run("numbers", "--config.file", config, env=env)
        assert ended.code == 0
        assert "\\u20b9499.00" in ended.stdout


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
    ("width", "titles", "name"),
    [
        pytest.param(
            140,
            "Account Number Name Circle Type Voice SMS Rental",
            "Customers of the North-West who call at night",
            id="140-everything",
        ),
        pytest.param(
            100,
            "Account Number Name Circle Voice SMS Rental",
            "Customers of the North…",
            id="100-without-type",
        ),
        pytest.param(
            80,
            "Account Number Name Voice SMS Rental",
            "Customers of the North…",
            id="80-without-circle",
        ),
        pytest.param(62, "Account Number Name Voice SMS", "Customers of …", id="62-what-is-needed"),
        pytest.param(
            40, "Account Number Name Voice SMS", "Customers o…", id="40-wrapped-by-the-terminal"
        ),
    ],
)
def test_a_narrow_terminal_keeps_number_name_and_flows(
    width: int, titles: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number, voice and SMS are never cut; first other columns go, then the name shrinks."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    screen = _Screen()
    monkeypatch.setattr("sys.stdout", screen)
    long_name = "Customers of the North-West who call at night"
    output.print_numbers(
        [
            ("main", phone(friendly_name=long_name, region="UE", voice_url="")),
            ("side", phone("sid-2", sms_url="")),
        ]
    )
    head, first, second = screen.lines()
    assert head.split() == titles.split()
    assert f" {name} " in first
    assert "+912248901111" in first
    assert "unattached" in first
    assert "unattached" in second
    assert len({head.index("Voice"), first.index("unattached"), second.index("11  ")}) <= 2
    if width >= 62:
        assert max(len(line.rstrip()) for line in (head, first, second)) <= width


class TestNumber:
    """One number from the detail endpoint."""

    def test_the_sample_of_the_vendor_as_a_table(self, config: str, sim: Simulator) -> None:
        """Every documented field, times in UTC, money as its country writes it."""
        sim.fail(Fault(status=200, body=DETAIL, endpoint="detail", times=None))
        ended = run("number", DETAIL_SID, "--config.file", config)
        assert (ended.code, ended.stderr) == (0, "")
        assert [line.rstrip() for line in ended.stdout.splitlines()] == DETAIL_TABLE.splitlines()
        assert [request.path.rpartition("/")[2] for request in sim.requests] == [DETAIL_SID]

    def test_the_sample_of_the_vendor_as_json(self, config: str, sim: Simulator) -> None:
        """Decimals as text, so that none of their digits is lost."""
        sim.fail(Fault(status=200, body=DETAIL, endpoint="detail", times=None))
        ended = run("number", DETAIL_SID, "--config.file", config, "--format=json")
        assert ended.code == 0
        assert json.loads(ended.stdout) == DETAIL_JSON

    def test_the_account_that_has_it_is_found(self, config: str, sim: Simulator) -> None:
        """Although the first one fails."""
        sid = sim.world.accounts["beta"].numbers[0]["sid"]
        sim.fail(Fault(status=403, account_sid="acme", times=None))
        ended = run("number", sid, "--config.file", config, "--format=json")
        assert ended.code == 0
        assert json.loads(ended.stdout)["account"] == "beta"

    def test_a_sid_that_nobody_has(self, config: str) -> None:
        """Exit 1 and where it was looked for."""
        ended = run("number", "nosuch", "--config.file", config)
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr == "exophone-exporter: no number with the SID `nosuch` in acme, beta\n"

    def test_a_failure_is_told_beside_it(self, config: str, sim: Simulator) -> None:
        """The number may be in the account that could not be asked."""
        sim.fail(Fault(status=403, account_sid="acme", times=None))
        ended = run("number", "nosuch", "--config.file", config)
        assert ended.code == 1
        assert "exophone-exporter: acme: 403" in ended.stderr
        assert ended.stderr.endswith("no number with the SID `nosuch` in beta\n")


class TestCheckConfig:
    """Validation without, and with, the API."""

    @pytest.mark.fault(123)
    def test_offline_it_asks_nobody(self, config: str, sim: Simulator) -> None:
        """The file is good; each account has a line with its host and interval."""
        ended = run("check-config", config)
        assert (ended.code, ended.stderr) == (0, "")
        assert ended.stdout.splitlines()[0] == f"{config}: valid, 2 accounts"
        assert f"acme-support at {sim.url}" not in ended.stdout
        assert f"acme at {sim.url}, every 300 s" in ended.stdout
        assert sim.requests == []

    @pytest.mark.fault(123)
    def test_offline_it_opens_no_socket(self, config: str, tmp_path: Path) -> None:
        """An audit hook in the interpreter's own start sees every socket there could be."""
        hook = "import sys\ndef see(event, args):\n  if event.startswith('socket.'): print(event)\n"
        (tmp_path / "sitecustomize.py").write_text(
            hook + "sys.addaudithook(see)\n", encoding="utf-8"
        )
        root = str(Path(output.__file__).parents[1])
        env = {"PYTHONPATH": f"{tmp_path}:{root}"}
        offline = run("check-config", config, env=env)
        live = run("check-config", config, "--live", env=env)
        assert "socket." not in offline.stdout
        assert "socket.connect" in live.stdout

    @pytest.mark.fault(123)
    def test_live_it_asks_each_account_once(self, config: str, sim: Simulator) -> None:
        """The first page is enough to prove the key."""
        ended = run("check-config", "--config.file", config, "--live")
        assert (ended.code, ended.stderr) == (0, "")
        assert "acme: OK, 50 numbers on the first page\n" in ended.stdout
        assert "beta: OK, 3 numbers on the first page\n" in ended.stdout
        assert [request.account_sid for request in sim.requests] == ["acme", "beta"]

    @pytest.mark.fault(123)
    def test_live_a_wrong_key_is_a_failure_that_hints_at_the_region(
        self, config: str, sim: Simulator
    ) -> None:
        """Exit 1; the other account is asked all the same."""
        sim.world.accounts["acme"].api_key = "rotated"
        ended = run("check-config", config, "--live")
        assert ended.code == 1
        assert "acme: failed (auth): 401" in ended.stdout
        assert "region" in ended.stdout
        assert "beta: OK" in ended.stdout

    def test_live_without_a_network_names_the_host(self, tmp_path: Path) -> None:
        """A refused connection is reported with its address."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = tmp_path / "refused.yml"
        file.write_text(
            f"accounts:\n  - {{name: a, sid: a, base_url: http://127.0.0.1:{port},"
            " api_key: k, api_token: t}\n",
            encoding="utf-8",
        )
        ended = run("check-config", str(file), "--live")
        assert ended.code == 1
        assert "a: failed (connect): " in ended.stdout
        assert "127.0.0.1" in ended.stdout
        assert "refused" in ended.stdout
