"""Several processes, each of which watches the accounts of its shard."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from exophone_exporter.config.sharding import Shard
from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import DEADLINE_SECONDS, LOOPBACK, config_file, get, run, started

ACCOUNTS = ("acme", "beta", "gamma", "delta")
# Of many shards there is one without any of the accounts.
EMPTY_SHARD = next(
    str(shard)
    for shard in (Shard(index, 50) for index in range(50))
    if not any(map(shard.holds, ACCOUNTS))
)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    with Simulator(World(*(make_account(name, 3) for name in ACCOUNTS))) as simulator:
        yield str(config_file(tmp_path, simulator))


def polled(text: str) -> set[str]:
    return {name for name in ACCOUNTS if f'exophone_up{{account="{name}"}} 1' in text}


def test_all_shards_together_cover_every_account_once(config: str) -> None:
    """`once` polls only its own; `check-config` checks the whole file and lists its own."""
    for shard in (Shard(0, 2), Shard(1, 2)):
        mine = {name for name in ACCOUNTS if shard.holds(name)}
        assert 0 < len(mine) < len(ACCOUNTS)
        assert polled(run("once", "--config.file", config, "--shard", f"{shard}").stdout) == mine
        first, *listed = run("check-config", config, "--shard", f"{shard}").stdout.splitlines()
        assert first == f"{config}: valid, 4 accounts, {len(mine)} of them in shard {shard}"
        assert {line.split()[0] for line in listed} == mine


def test_an_empty_shard_is_not_an_error_of_the_commands(config: str) -> None:
    for command in (("once",), ("numbers",), ("numbers", "--unattached")):
        ended = run(*command, "--config.file", config, "--shard", EMPTY_SHARD)
        assert ended.code == 0
        assert ended.stderr == f"exophone-exporter: no account belongs to shard {EMPTY_SHARD}\n"
    checked = run("check-config", config, "--shard", EMPTY_SHARD, "--live")
    assert checked.code == 0
    assert checked.stdout == f"{config}: valid, 4 accounts, 0 of them in shard {EMPTY_SHARD}\n"


def test_an_account_of_another_shard_is_unknown(config: str) -> None:
    ended = run("numbers", "--config.file", config, "--shard", EMPTY_SHARD, "--account=acme")
    assert ended.code == 2
    assert f"unknown account in shard {EMPTY_SHARD}; configured: none" in ended.stderr


def test_a_server_keeps_its_shard_over_a_reload(config: str) -> None:
    mine = {name for name in ACCOUNTS if Shard(1, 2).holds(name)}
    with started("--config.file", config, "--shard=1/2", LOOPBACK) as running:
        url = running.url()
        running.wait_for(f"msg=listening .*accounts={len(mine)} shard=1/2")
        for name in mine:
            running.wait_for(f"first poll is complete.*account={name} ")
        assert "<p>Shard 1/2: other processes poll the other accounts.</p>" in get(f"{url}/")[1]
        running.send(signal.SIGHUP)
        running.wait_for(f'msg="the configuration was reloaded" kept={len(mine)} ')
        assert polled(get(f"{url}/metrics")[1]) == mine
        assert running.end(seconds=DEADLINE_SECONDS) == 0


def test_a_server_with_an_empty_shard_is_ready(config: str) -> None:
    """It waits for accounts that a reload may bring, and says that it has none."""
    with started("--config.file", config, "--shard", EMPTY_SHARD, LOOPBACK) as running:
        url = running.url()
        running.wait_for(
            f'msg="no account belongs to this shard; nothing is polled" shard={EMPTY_SHARD}'
        )
        assert get(f"{url}/-/ready")[0] == 200
        assert get(f"{url}/-/healthy")[0] == 200
        status, text = get(f"{url}/metrics")
        assert (status, polled(text)) == (200, set())
        assert "no configured account belongs to it." in get(f"{url}/")[1]
        assert running.end(seconds=DEADLINE_SECONDS) == 0


def test_without_the_flag_nothing_mentions_shards(config: str) -> None:
    with started("--config.file", config, LOOPBACK) as running:
        assert "Shard" not in get(f"{running.url()}/")[1]
        assert "shard" not in running.stderr
        assert running.end(seconds=DEADLINE_SECONDS) == 0
