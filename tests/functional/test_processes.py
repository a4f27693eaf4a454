"""The real program against the simulator: signals, streams, surroundings, secrets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.processes import (
    LOOPBACK,
    Running,
    can_get,
    config_file,
    full_pipe,
    get,
    run,
    started,
    wait_until,
)
from tests.lib.servers import slow_reader
from tests.lib.support import closed_port


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


@pytest.mark.fault(122)
def test_stderr_that_nobody_reads_holds_up_neither_polls_nor_scrapes_nor_the_end(
    tmp_path: Path, sim: Simulator
) -> None:
    config = str(config_file(tmp_path, sim, "interval: 1s"))
    port = closed_port()
    words = ("--config.file", config, f"--web.listen-address=127.0.0.1:{port}")
    with full_pipe() as pipe, started(*words, stderr=pipe) as running:
        wait_until(lambda: len(sim.requests) > 8, "polls of both accounts")
        wait_until(lambda: can_get(f"http://127.0.0.1:{port}/metrics"), "a scrape")
        assert running.end() == 0


@pytest.mark.fault(118)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
class TestOneSignal:
    """Ends `serve` with 0, whatever it does at the time."""

    def test_idle(self, config: str, number: signal.Signals) -> None:
        with started("--config.file", config, LOOPBACK) as running:
            running.wait_for("first poll is complete.*account=beta")
            assert running.end(number) == 0
            assert f"msg=stopping signal={number.name}" in running.stderr

    def test_during_a_request_that_hangs(
        self, config: str, sim: Simulator, number: signal.Signals
    ) -> None:
        sim.fail(Fault(after="hang", times=None))
        with started("--config.file", config, LOOPBACK) as running:
            wait_until(lambda: len(sim.requests) == 2, "both accounts asked")
            assert running.end(number) == 0

    def test_during_a_wait_that_the_api_asked_for(
        self, config: str, sim: Simulator, number: signal.Signals
    ) -> None:
        sim.fail(Fault(status=429, headers={"Retry-After": "30"}, times=None))
        with started("--config.file", config, LOOPBACK, "--log.level=debug") as running:
            running.wait_for("asking again.*wait_seconds=30.000")
            assert running.end(number) == 0

    def test_while_a_scrape_is_read_slowly(self, large: str, number: signal.Signals) -> None:
        """The client gets a second to finish."""
        with started("--config.file", large, LOOPBACK) as running:
            running.wait_for("first poll is complete.*account=acme")
            with slow_reader(urlsplit(running.url()).port or 0):
                assert running.end(number) == 0

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
            assert running.end(number, seconds=8.0) == 0
            assert not probed.result()

    @pytest.mark.parametrize("delay_seconds", [0, 0.1, 0.25])
    def test_during_start_up(
        self, config: str, number: signal.Signals, delay_seconds: float
    ) -> None:
        """From the moment on when the program has a handler, a little later, and later."""
        with started("--config.file", config, LOOPBACK) as running:
            wait_until(running.handles_signals, "a handler for signals")
            threading.Event().wait(delay_seconds)
            assert running.end(number) == 0

    @pytest.mark.parametrize(
        "words", [("demo", LOOPBACK), ("simulate", LOOPBACK)], ids=["demo", "simulate"]
    )
    def test_of_the_other_commands_that_serve(
        self, words: tuple[str, ...], number: signal.Signals
    ) -> None:
        with started(*words) as running:
            running.wait_for("Press Ctrl-C to stop", "stdout")
            assert running.end(number) == 0


@pytest.mark.fault(118)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_immediately(large: str, number: signal.Signals, code: int) -> None:
    """While the first waits for a client that reads slowly."""
    with started("--config.file", large, LOOPBACK) as running:
        running.wait_for("first poll is complete.*account=acme")
        with slow_reader(urlsplit(running.url()).port or 0):
            running.send(number)
            running.wait_for("msg=stopping")
            assert running.end(number) == code


@pytest.mark.fault(121)
@pytest.mark.parametrize("command", ["serve", "demo", "simulate"])
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


def test_the_demo_lives_without_anything_else(tmp_path: Path) -> None:
    """Its banner fits 80 columns and its two accounts are up."""
    with started("demo", LOOPBACK, cwd=tmp_path) as running:
        running.wait_for("Press Ctrl-C to stop", "stdout")
        url = running.wait_for(r"Metrics +(\S+)/metrics", "stdout")[1]
        wait_until(
            lambda: get(f"{url}/metrics")[1].count("exophone_up{") == 2, "both accounts polled"
        )
        assert f'- targets: ["{url.removeprefix("http://")}"]' in running.stdout
        assert "honor_labels: true" in running.stdout
        running.wait_for(r"1:00  \+\d+ .* loses its voice flow\.\n +ExoPhoneFlowD", "stdout")
        running.wait_for(r"1:30  \+\d+ .* disappears\.\n +ExoPhoneNumbersD", "stdout")
        assert max(map(len, running.stdout.splitlines())) <= 80


def test_the_simulator_prints_a_configuration_that_works(tmp_path: Path) -> None:
    """What `simulate` prints can be pasted into a file and used."""
    with started("simulate", LOOPBACK, "--numbers=3") as running:
        running.wait_for("Press Ctrl-C to stop", "stdout")
        _, _, rest = running.stdout.partition("A configuration file for these accounts:\n\n")
        lines = [line[2:] for line in rest.splitlines() if line.startswith("  ")]
        file = tmp_path / "printed.yml"
        file.write_text("\n".join(lines), encoding="utf-8")
        ended = run("numbers", "--format=csv", "--config.file", str(file))
        assert max(map(len, running.stdout.splitlines())) <= 80
        url = running.wait_for(r"curl -X POST (\S+)", "stdout")[1]
        request = urllib.request.Request(url, method="POST")  # noqa: S310 - our own http URL
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - likewise
            assert "lost its voice flow" in answer.read().decode()
    assert ended.code == 0
    assert len(ended.stdout.splitlines()) == 1 + 3


@pytest.mark.fault(122)
class TestStreams:
    """A process that serves goes on when they are closed or full."""

    @pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-", "2>/dev/full"])
    def test_serve_goes_on_without_them(self, config: str, closed: str) -> None:
        """And no socket takes the place of a closed descriptor."""
        port = closed_port()
        words = ("--config.file", config, f"--web.listen-address=127.0.0.1:{port}")
        with started(*words, wrapper=f'exec "$@" {closed}') as running:
            wait_until(lambda: can_get(f"http://127.0.0.1:{port}/metrics"), "an answer")
            stderr = Path(f"/proc/{running.pid}/fd/2").readlink()
            assert stderr == Path("/dev/full" if "full" in closed else "/dev/null")
            assert running.end() == 0

    def test_the_demo_goes_on_when_nobody_reads_its_banner(self) -> None:
        with started("demo", LOOPBACK, wrapper='exec "$@" >/dev/full') as running:
            running.wait_for("first poll is complete")
            assert running.end() == 0

    @pytest.mark.parametrize(
        "command",
        ["once", "numbers", "numbers --format=json", "numbers --format=csv", "check-config"],
    )
    def test_a_reader_that_left_does_not_cause_a_failure(self, command: str, config: str) -> None:
        """`once | head -1` is quiet and exits with 0."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ended = run(
                *command.split(), "--config.file", config, stdout=writing, stderr=subprocess.PIPE
            )
        finally:
            os.close(writing)
        assert (ended.code, ended.stderr) == (0, "")

    @pytest.mark.parametrize(
        "words",
        ["once", "numbers", "--version", "once --help", "--completion-script-bash"],
    )
    def test_a_full_disk_is_a_failure(self, words: str, config: str) -> None:
        file = () if "--" in words else ("--config.file", config)
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            ended = run(*words.split(), *file, stdout=full, stderr=subprocess.PIPE)
        assert (ended.code, ended.stderr) == (
            1,
            "exophone-exporter: cannot write to standard output: No space left on device\n",
        )


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
