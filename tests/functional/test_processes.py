"""The real program against the simulator: signals, streams, surroundings, secrets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.processes import Running, config_file, get, run, started, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "--web.listen-address=127.0.0.1:0"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 120), make_account("beta", 3))) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, sim: Simulator) -> str:
    return str(config_file(tmp_path, sim))


@pytest.fixture
def large(tmp_path: Path) -> Iterator[str]:
    """The configuration of an account whose page is larger than what the system buffers."""
    with Simulator(World(make_account("acme", 8000))) as sim:
        yield str(config_file(tmp_path, sim, "page_size: 1000"))


def scraped(running: Running, line: str) -> bool:
    return line in get(f"{running.url()}/metrics")[1].splitlines()


def read_slowly(url: str) -> socket.socket:
    """A client that asks for more than the system buffers, and then reads nothing."""
    parts = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect((parts.hostname, parts.port))
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    client.recv(64)  # the answer has begun
    return client


both_signals = pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, id="SIGINT")],
)


@pytest.mark.fault(118)
class TestOneSignal:
    """Ends `serve` with 0 within 2 seconds, wherever it is."""

    @both_signals
    def test_idle(self, config: str, number: signal.Signals) -> None:
        """After the first polls; the log says what ended it."""
        with started("--config.file", config, LOOPBACK) as running:
            running.wait_for("first poll is complete.*account=beta")
            assert running.end(number) == 0
            assert f"msg=stopping signal={number.name}" in running.stderr

    @both_signals
    def test_during_a_request_that_hangs(
        self, config: str, sim: Simulator, number: signal.Signals
    ) -> None:
        """And before there was any result."""
        sim.fail(Fault(after="hang", times=None))
        with started("--config.file", config, LOOPBACK) as running:
            wait_until(lambda: len(sim.requests) == 2, "both accounts asked")
            assert running.end(number) == 0

    @both_signals
    def test_during_a_wait_that_the_api_asked_for(
        self, config: str, sim: Simulator, number: signal.Signals
    ) -> None:
        """A process that should stop does not wait for Retry-After: 30."""
        sim.fail(Fault(status=429, headers={"Retry-After": "30"}, times=None))
        with started("--config.file", config, LOOPBACK, "--log.level=debug") as running:
            running.wait_for("asking again.*wait_seconds=30.000")
            assert running.end(number) == 0

    @both_signals
    def test_during_a_walk_that_waits_for_its_budget(
        self, tmp_path: Path, sim: Simulator, number: signal.Signals
    ) -> None:
        """The second request of the minute waits for the next minute."""
        file = tmp_path / "slow.yml"
        file.write_text(
            "poll: {requests_per_minute: 1, page_size: 10, interval: 1h, deadline: 1h}\naccounts:\n"
            f"  - {{name: acme, sid: acme, base_url: {sim.url},"
            " api_key: acme-key, api_token: acme-token}\n",
            encoding="utf-8",
        )
        with started("--config.file", str(file), LOOPBACK) as running:
            wait_until(lambda: len(sim.requests) == 1, "the first page")
            running.url()
            assert running.end(number) == 0
        assert len(sim.requests) == 1

    @both_signals
    def test_while_a_scrape_is_read_slowly(self, large: str, number: signal.Signals) -> None:
        """The client gets a second to finish."""
        with started("--config.file", large, LOOPBACK) as running:
            running.wait_for("first poll is complete.*account=acme")
            with read_slowly(running.url()):
                assert running.end(number) == 0

    @both_signals
    def test_while_a_probe_waits_for_the_api(
        self, config: str, sim: Simulator, number: signal.Signals
    ) -> None:
        """Its request, which may take 10 s more, is left to itself after a second of grace."""
        sim.fail(Fault(after="hang", endpoint="detail", times=None))
        with (
            started("--config.file", config, LOOPBACK) as running,
            ThreadPoolExecutor(1) as pool,
        ):
            url = f"{running.url()}/probe?account=beta&target=a"
            probed = pool.submit(can_get, url)
            wait_until(lambda: [r for r in sim.requests if r.path.endswith("/a")], "the probe")
            assert running.end(number, seconds=5.0) == 0
            assert not probed.result()

    @both_signals
    def test_while_it_reads_its_configuration(self, tmp_path: Path, number: signal.Signals) -> None:
        """Long before there is a server: a pipe that nobody writes keeps it there."""
        pipe = tmp_path / "pipe.yml"
        os.mkfifo(pipe)
        with started("--config.file", str(pipe), LOOPBACK) as running:
            wait_until(running.handles_signals, "a handler for signals")
            assert running.end(number) == 0

    @pytest.mark.parametrize(
        "delay_seconds",
        [pytest.param(delay / 1000, id=f"{delay}ms") for delay in (0, 100, 250)],
    )
    @both_signals
    def test_during_start_up(
        self, config: str, number: signal.Signals, delay_seconds: float
    ) -> None:
        """From the moment on when the program has a handler, a little later, and later."""
        with started("--config.file", config, LOOPBACK) as running:
            wait_until(running.handles_signals, "a handler for signals")
            threading.Event().wait(delay_seconds)
            assert running.end(number) == 0

    @pytest.mark.parametrize(
        ("words", "printed"),
        [
            pytest.param(("demo", LOOPBACK), "Press Ctrl-C to stop", id="demo"),
            pytest.param(
                ("simulate", "--web.listen-address=127.0.0.1:0"),
                "Press Ctrl-C to stop",
                id="simulate",
            ),
        ],
    )
    @both_signals
    def test_of_the_other_commands_that_serve(
        self, words: tuple[str, ...], printed: str, number: signal.Signals
    ) -> None:
        """They end like `serve`."""
        with started(*words) as running:
            running.wait_for(printed, "stdout")
            assert running.end(number) == 0


@pytest.mark.fault(118)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
    ],
)
def test_a_second_signal_ends_at_once(large: str, number: signal.Signals, code: int) -> None:
    """While the first waits for a client that reads slowly."""
    with started("--config.file", large, LOOPBACK) as running:
        running.wait_for("first poll is complete.*account=acme")
        with read_slowly(running.url()):
            running.send(number)
            running.wait_for("msg=stopping")
            assert running.end(number, seconds=0.5) == code


@pytest.mark.fault(118)
def test_ctrl_c_ends_a_command_that_asks_although_the_api_hangs(
    config: str, sim: Simulator
) -> None:
    """Within 2 seconds and as shells expect it, 130; nothing is printed."""
    sim.fail(Fault(after="hang", times=None))
    with started("numbers", "--config.file", config) as running:
        wait_until(lambda: len(sim.requests) == 2, "both accounts asked")
        assert running.end(signal.SIGINT) == 130
        assert (running.stdout, running.stderr) == ("", "")


@pytest.mark.fault(119)
def test_a_shell_that_execs_it_gives_it_its_pid_and_signals(config: str) -> None:
    """As in the exec form of a container's command: nothing stands between."""
    with started("--config.file", config, LOOPBACK, wrapper='exec "$@"') as running:
        running.url()
        assert running.end() == 0


@pytest.mark.fault(121)
@pytest.mark.parametrize(
    "command", [pytest.param("serve", id="serve"), pytest.param("demo", id="demo")]
)
def test_a_port_in_use_ends_it_before_the_first_request(
    command: str, config: str, sim: Simulator
) -> None:
    """One line that says what to do, exit 1, and the API was left alone."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ("--config.file", config) if command == "serve" else ()
        ended = run(command, *words, "--web.listen-address", address)
    assert ended.code == 1
    assert ended.stderr == (
        f"exophone-exporter: cannot listen on {address}: Address already in use;"
        " choose another address with --web.listen-address\n"
    )
    assert sim.requests == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param(
            "127.0.0.1:99999",
            "cannot listen on `127.0.0.1:99999`: write it like 127.0.0.1:10397",
            id="port-too-large",
        ),
        pytest.param("[::1]:0", "write it like 127.0.0.1:10397", id="ipv6"),
        pytest.param("127.0.0.1:x", "write it like 127.0.0.1:10397", id="no-port"),
        pytest.param("192.0.2.1:0", "Cannot assign requested address", id="foreign"),
    ],
)
def test_simulate_refuses_an_address_in_one_line(address: str, message: str) -> None:
    """Exit 1, as `serve` does."""
    ended = run("simulate", "--web.listen-address", address)
    assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert message in ended.stderr


def test_several_addresses_are_served_and_logged(config: str) -> None:
    """--web.listen-address is repeatable; port 0 is reported as the one that was taken."""
    words = ("--config.file", config, LOOPBACK, "--web.listen-address=[::1]:0")
    with started(*words) as running:
        urls = running.wait_for('msg=listening url="([^"]+)"')[1].split()
        ports = [int(url.rpartition(":")[2]) for url in urls]
        assert get(f"http://127.0.0.1:{ports[0]}/-/healthy")[0] == 200
        assert get(f"http://[::1]:{ports[1]}/-/healthy")[0] == 200
        assert running.end() == 0
    assert len(set(ports)) == 2
    assert 0 not in ports


def test_variables_alone_describe_an_account(sim: Simulator) -> None:
    """`docker run -e ...` needs no file; the account is called by its sid."""
    env = {
        "EXOTEL_ACCOUNT_SID": "beta",
        "EXOTEL_API_KEY": "beta-key",
        "EXOTEL_API_TOKEN": "beta-token",
        "EXOTEL_BASE_URL": sim.url,
    }
    with started(LOOPBACK, env=env) as running:
        running.wait_for("first poll is complete.*account=beta numbers=3")
        assert scraped(running, 'exophone_up{account="beta"} 1.0')


def test_an_account_that_fails_does_not_disturb_the_other(config: str, sim: Simulator) -> None:
    """Each has its own health; readiness comes with the first attempt, even a bad one."""
    sim.fail(Fault(status=403, account_sid="acme", times=None))
    with started("--config.file", config, LOOPBACK) as running:
        running.wait_for("first poll is complete.*account=beta")
        running.wait_for("level=warn.*the poll failed.*account=acme reason=forbidden")
        assert get(f"{running.url()}/-/ready") == (200, "exophone-exporter is ready.\n")
        assert scraped(running, 'exophone_up{account="acme"} 0.0')
        assert scraped(running, 'exophone_up{account="beta"} 1.0')
        assert "acme-key" not in running.stderr


def test_the_demo_lives_without_anything_else(tmp_path: Path) -> None:
    """Its banner fits 80 columns and its two accounts are up."""
    with started("demo", LOOPBACK, cwd=tmp_path) as running:
        running.wait_for("Press Ctrl-C to stop", "stdout")
        url = running.wait_for(r"Metrics +(\S+)/metrics", "stdout")[1]
        wait_until(
            lambda: get(f"{url}/metrics")[1].count("exophone_up{") == 2, "both accounts polled"
        )
        assert f'- targets: ["{url.removeprefix("http://")}"]' in running.stdout
        assert max(map(len, running.stdout.splitlines())) <= 80


def test_the_simulator_prints_a_configuration_that_works(tmp_path: Path) -> None:
    """What `simulate` prints can be pasted into a file and used."""
    words = ("simulate", "--web.listen-address=127.0.0.1:0", "--numbers=3")
    with started(*words) as running:
        running.wait_for("Press Ctrl-C to stop", "stdout")
        _, _, rest = running.stdout.partition("A configuration file for these accounts:\n\n")
        lines = [line[2:] for line in rest.splitlines() if line.startswith("  ")]
        file = tmp_path / "printed.yml"
        file.write_text("\n".join(lines), encoding="utf-8")
        ended = run("numbers", "--format=csv", "--config.file", str(file))
    assert ended.code == 0
    assert len(ended.stdout.splitlines()) == 1 + 3


@pytest.mark.fault(122)
class TestStreams:
    """Closed or full, they end nobody who serves."""

    @pytest.mark.parametrize(
        "closed", [pytest.param("2>&-", id="stderr"), pytest.param(">&- 2>&- <&-", id="all")]
    )
    def test_serve_lives_without_them(self, config: str, closed: str) -> None:
        """And no socket takes the place of a closed descriptor."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = ["--config.file", config, f"--web.listen-address=127.0.0.1:{port}"]
        with started(*words, wrapper=f'exec "$@" {closed}') as running:
            wait_until(lambda: can_get(f"http://127.0.0.1:{port}/metrics"), "an answer")
            assert Path(f"/proc/{running.pid}/fd/2").readlink() == Path("/dev/null")
            assert running.end() == 0

    def test_serve_lives_when_its_log_is_full(self, config: str) -> None:
        """A disk without room loses log lines, not metrics."""
        with (
            socket.create_server(("127.0.0.1", 0)) as free,
            Path("/dev/full").open("w", encoding="utf-8") as full,
        ):
            port = free.getsockname()[1]
            free.close()
            words = ("--config.file", config, f"--web.listen-address=127.0.0.1:{port}")
            with started(*words, stderr=full) as running:
                wait_until(lambda: can_get(f"http://127.0.0.1:{port}/metrics"), "an answer")
                assert running.end() == 0

    def test_the_demo_lives_when_nobody_reads_its_banner(self) -> None:
        """`demo >/dev/full` serves all the same."""
        with (
            Path("/dev/full").open("w", encoding="utf-8") as full,
            started("demo", LOOPBACK, stdout=full) as running,
        ):
            running.wait_for("first poll is complete")
            assert running.end() == 0

    @pytest.mark.parametrize(
        "words",
        [
            pytest.param(("once",), id="once"),
            pytest.param(("numbers",), id="numbers"),
            pytest.param(("numbers", "--format=json"), id="json"),
            pytest.param(("numbers", "--format=csv"), id="csv"),
            pytest.param(("check-config",), id="check-config"),
        ],
    )
    def test_a_reader_that_left_is_no_failure(self, words: tuple[str, ...], config: str) -> None:
        """`once | head -1` is quiet and exits with 0."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ended = run(*words, "--config.file", config, stdout=writing, stderr=subprocess.PIPE)
        finally:
            os.close(writing)
        assert (ended.code, ended.stderr) == (0, "")

    @pytest.mark.parametrize(
        "words",
        [pytest.param(("once",), id="once"), pytest.param(("numbers",), id="numbers")],
    )
    def test_a_full_disk_is_a_failure(self, words: tuple[str, ...], config: str) -> None:
        """Exit 1 and the system's reason."""
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            ended = run(*words, "--config.file", config, stdout=full, stderr=subprocess.PIPE)
        assert (ended.code, ended.stderr) == (
            1,
            "exophone-exporter: cannot write to standard output: No space left on device\n",
        )


def can_get(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


@pytest.mark.fault(135)
def test_it_needs_no_home_no_environment_and_no_disk(config: str, tmp_path: Path) -> None:
    """Nothing is written: even a limit of 0 bytes on every file does not matter."""
    bare = tmp_path / "bare"
    bare.mkdir(mode=0o555)
    # A shell of its own unsets what `started` gives, but the path to the package under test.
    wrapper = 'ulimit -f 0; exec env -i PYTHONPATH="$PYTHONPATH" "$@"'
    words = ("--config.file", config, LOOPBACK)
    with started(*words, wrapper=wrapper, cwd=bare) as running:
        running.wait_for("first poll is complete.*account=acme")
        assert scraped(running, 'exophone_up{account="acme"} 1.0')
        assert running.end() == 0
    assert list(bare.iterdir()) == []
