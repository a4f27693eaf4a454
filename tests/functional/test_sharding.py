"""Which process watches which account."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exophone_exporter.config.settings import Config
from exophone_exporter.config.sharding import WHOLE, Shard, parse
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import DEADLINE_SECONDS, config_file, get, run, started
from tests.lib.support import account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = "--web.listen-address=127.0.0.1:0"
NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=64)
THOUSAND = [f"account-{number}" for number in range(1000)]


def owner(account: str, count: int) -> int:
    """The one share that has an account."""
    (index,) = [index for index in range(count) if Shard(index, count).holds(account)]
    return index


class TestShares:
    @given(NAMES, st.integers(1, 20))
    def test_every_account_is_in_exactly_one(self, account: str, count: int) -> None:
        assert 0 <= owner(account, count) < count

    @given(NAMES, st.integers(1, 20))
    def test_one_more_takes_accounts_and_moves_no_other(self, account: str, count: int) -> None:
        assert owner(account, count + 1) in (owner(account, count), count)

    @given(st.lists(NAMES, unique=True, max_size=6), st.integers(1, 5))
    def test_a_configuration_is_shared_out_in_its_order(self, names: list[str], count: int) -> None:
        whole = Config("FILE", tuple(map(account, names)), ("a warning",))
        shares = [whole.share(Shard(index, count)) for index in range(count)]
        for index, share in enumerate(shares):
            assert share.shard == Shard(index, count)
            mine = [name for name in names if owner(name, count) == index]
            assert [one.name for one in share.accounts] == mine
        assert whole.share(None) is whole

    @given(NAMES)
    def test_the_only_one_has_everything(self, account: str) -> None:
        assert WHOLE.holds(account)

    @pytest.mark.parametrize("count", [pytest.param(n, id=str(n)) for n in (2, 3, 10)])
    def test_they_are_about_equal(self, count: int) -> None:
        """No share of a thousand accounts is a third larger than its part."""
        sizes = [
            sum(Shard(index, count).holds(name) for name in THOUSAND) for index in range(count)
        ]
        assert sum(sizes) == 1000
        assert max(sizes) < 1000 / count * 4 / 3

    def test_a_fourth_one_takes_about_a_quarter(self) -> None:
        """Of a plain remainder three in four accounts would move."""
        moved = sum(owner(name, 3) != owner(name, 4) for name in THOUSAND)
        assert 200 < moved < 300

    def test_they_are_the_same_in_every_version(self) -> None:
        """An update that changed them would move accounts; so these are written down."""
        names = ("support", "sales", "acme1", "acme2", "billing", "north", "south")
        assert [owner(name, 3) for name in names] == [2, 1, 0, 2, 0, 1, 2]


class TestText:
    @pytest.mark.parametrize(
        ("text", "shard"),
        [
            pytest.param("0/3", Shard(0, 3), id="first"),
            pytest.param("2/3", Shard(2, 3), id="last"),
            pytest.param("0/1", WHOLE, id="whole"),
            pytest.param("999/1000", Shard(999, 1000), id="most"),
        ],
    )
    def test_a_shard_is_read_and_written_the_same(self, text: str, shard: Shard) -> None:
        assert parse(text) == shard
        assert str(shard) == text

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            pytest.param("3/3", "they count from 0, the last one is 2/3", id="one-too-many"),
            pytest.param("1/1", "they count from 0, the last one is 0/1", id="second-of-one"),
            pytest.param("0/0", "there may be 1 to 1000 of them", id="of-none"),
            pytest.param("0/1001", "there may be 1 to 1000 of them", id="of-too-many"),
            pytest.param("", "write it like 0/3, the first of three", id="empty"),
            pytest.param("1", "write it like 0/3, the first of three", id="no-count"),
            pytest.param("-1/3", "write it like 0/3, the first of three", id="negative"),
            pytest.param("1 / 3", "write it like 0/3, the first of three", id="spaces"),
            pytest.param("1/3/5", "write it like 0/3, the first of three", id="three"),
            pytest.param("a/b", "write it like 0/3, the first of three", id="words"),
            pytest.param(
                "\N{ARABIC-INDIC DIGIT ZERO}/3",
                "write it like 0/3, the first of three",
                id="other-digits",
            ),
            pytest.param("0/3\n", "write it like 0/3, the first of three", id="line-break"),
        ],
    )
    def test_what_is_none_is_refused_with_what_is_right(self, text: str, advice: str) -> None:
        with pytest.raises(ValueError, match="is no shard") as caught:
            parse(text)
        assert str(caught.value).endswith(advice)


# --- the real program

ACCOUNTS = ("acme", "beta", "gamma", "delta")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    with Simulator(World(*(make_account(name, 3) for name in ACCOUNTS))) as simulator:
        yield str(config_file(tmp_path, simulator))


def polled(text: str) -> set[str]:
    """The accounts in an exposition."""
    return {name for name in ACCOUNTS if f'exophone_up{{account="{name}"}} 1' in text}


def test_a_bad_shard_is_a_usage_error() -> None:
    """Exit 2 and a line that says what is right, whatever the command."""
    for command in ("serve", "once", "numbers", "check-config"):
        ended = run(command, "--shard=3/3")
        assert (ended.code, ended.stdout) == (2, "")
        assert ended.stderr == (
            "exophone-exporter: argument --shard: `3/3` is no shard; they count from 0,"
            f" the last one is 2/3\ntry `exophone-exporter {command} --help`\n"
        )


def test_once_and_once_again_cover_every_account_once(config: str) -> None:
    """Each account stands in the exposition of one shard."""
    shares = [
        polled(run("once", "--config.file", config, "--shard", f"{i}/2").stdout) for i in (0, 1)
    ]
    assert shares[0] | shares[1] == set(ACCOUNTS)
    assert not shares[0] & shares[1]
    assert shares[0]
    assert shares[1]


def test_check_config_says_whose_the_accounts_are(config: str) -> None:
    """All of the file is checked; listed is what the shard would watch."""
    listed = [run("check-config", config, "--shard", f"{i}/2").stdout for i in (0, 1)]
    for index, text in enumerate(listed):
        mine = [name for name in ACCOUNTS if f"\n{name} " in text]
        assert text.startswith(
            f"{config}: good, 4 accounts, {len(mine)} of them in shard {index}/2\n"
        )
    assert sum(text.count("\n") - 1 for text in listed) == len(ACCOUNTS)


def empty_share() -> str:
    """A shard that has none of the accounts: of many there is one."""
    return next(
        str(Shard(index, 50))
        for index in range(50)
        if not any(Shard(index, 50).holds(name) for name in ACCOUNTS)
    )


def test_an_empty_share_is_no_failure_of_the_commands_that_ask(config: str) -> None:
    """They say so, and exit with 0: a shard for growth is no mistake."""
    shard = empty_share()
    for command in (("once",), ("numbers",), ("numbers", "--unattached")):
        ended = run(*command, "--config.file", config, "--shard", shard)
        assert ended.code == 0
        assert ended.stderr == f"exophone-exporter: no account belongs to shard {shard}\n"
    checked = run("check-config", config, "--shard", shard, "--live")
    assert (checked.code, checked.stdout) == (
        0,
        f"{config}: good, 4 accounts, 0 of them in shard {shard}\n",
    )


def test_an_account_of_another_shard_is_not_there(config: str) -> None:
    """The message says where it was looked for."""
    shard = empty_share()
    ended = run("numbers", "--config.file", config, "--shard", shard, "--account=acme")
    assert ended.code == 2
    assert f"no such account in shard {shard}; there are: none" in ended.stderr


def test_a_server_has_its_share_and_keeps_it_over_a_reload(config: str) -> None:
    """Log, status page and metrics say the same."""
    mine = {name for name in ACCOUNTS if Shard(1, 2).holds(name)}
    with started("--config.file", config, "--shard=1/2", LOOPBACK) as running:
        url = running.url()
        running.wait_for(f"msg=listening .*accounts={len(mine)} shard=1/2")
        for name in mine:
            running.wait_for(f"first poll is complete.*account={name} ")
        assert "<p>Shard 1/2: other processes watch the other accounts.</p>" in get(f"{url}/")[1]
        running.send(signal.SIGHUP)
        running.wait_for(f'msg="the configuration was reloaded" kept={len(mine)} ')
        assert polled(get(f"{url}/metrics")[1]) == mine
        assert running.end(seconds=DEADLINE_SECONDS) == 0


def test_a_server_with_an_empty_share_is_ready_at_once(config: str) -> None:
    """It waits for accounts that a reload may bring, and says that it has none."""
    shard = empty_share()
    with started("--config.file", config, "--shard", shard, LOOPBACK) as running:
        url = running.url()
        running.wait_for(f'msg="no account belongs to this shard; nothing is polled" shard={shard}')
        assert get(f"{url}/-/ready")[0] == 200
        assert get(f"{url}/-/healthy")[0] == 200
        status, text = get(f"{url}/metrics")
        assert (status, polled(text)) == (200, set())
        assert "no account of the configuration belongs to it." in get(f"{url}/")[1]
        assert running.end(seconds=DEADLINE_SECONDS) == 0


def test_without_the_flag_nothing_speaks_of_shards(config: str) -> None:
    """One process for all accounts is the usual case."""
    with started("--config.file", config, LOOPBACK) as running:
        assert "Shard" not in get(f"{running.url()}/")[1]
        assert "shard" not in running.stderr
        assert running.end(seconds=DEADLINE_SECONDS) == 0
