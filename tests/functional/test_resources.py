"""The real program where the system gives little, and what it takes: files, threads, memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from exophone_exporter.simulator import Fault, Simulator, World, make_account
from tests.lib.fault_server import Conversation, FaultServer, ok
from tests.lib.processes import (
    DEADLINE_SECONDS,
    LOOPBACK,
    Running,
    can_get,
    config_file,
    get,
    run,
    started,
    wait_until,
)
from tests.lib.servers import rest_of

MIB: Final = 1024 * 1024
# A thread needs a stack of a gigabyte of addresses: of these it can be given none, or enough.
LARGE_STACKS: Final = "ulimit -s 1048576"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 3))) as running:
        yield running


def up(running: Running) -> bool:
    return 'exophone_up{account="acme"} 1.0' in get(f"{running.url()}/metrics")[1].splitlines()


def hooked(folder: Path, code: str) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    path = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{folder}:{path}".rstrip(":")}


def limit(running: Running, which: int, soft: int) -> None:
    """Limit a process that runs; what it has stays."""
    _, hard = resource.prlimit(running.pid, which)
    resource.prlimit(running.pid, which, (soft, hard))


def address_space(running: Running) -> int:
    pages = Path(f"/proc/{running.pid}/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def cpu_seconds(running: Running) -> float:
    fields = Path(f"/proc/{running.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")


# --- descriptors and connections


WHOLE: Final = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def connected(running: Running, count: int, *sent: bytes) -> Iterator[list[socket.socket]]:
    parts = urlsplit(running.url())
    with contextlib.ExitStack() as opened:
        clients = []
        for number in range(count):
            client = socket.create_connection((parts.hostname, parts.port), DEADLINE_SECONDS)
            clients.append(opened.enter_context(client))
            with contextlib.suppress(ConnectionError):
                client.sendall(sent[number % len(sent)])
        yield clients


@pytest.mark.fault(107, 133)
def test_a_thousand_connections_take_no_thread_and_no_more_than_their_cap(
    tmp_path: Path, sim: Simulator
) -> None:
    """544 of them together; a scrape is answered meanwhile, and nothing is left of them."""
    with started("--config.file", str(config_file(tmp_path, sim)), LOOPBACK) as running:
        running.wait_for("first poll is complete")
        assert up(running)
        threads, descriptors = running.threads(), running.descriptors()
        with connected(running, 1000, b"", WHOLE[:9], WHOLE, b"\0\r\n\r\n", WHOLE * 2):
            assert up(running)
            assert running.threads() == threads
            assert running.descriptors() <= descriptors + 544
        wait_until(lambda: running.descriptors() <= descriptors, "every connection is gone")
        assert running.end() == 0


@pytest.mark.fault(130)
def test_with_forty_descriptors_a_crowd_neither_ends_it_nor_stops_its_polls_for_good(
    tmp_path: Path, sim: Simulator
) -> None:
    """The crowd takes them all: scrapes still come through, and afterwards all is as before."""
    config = str(config_file(tmp_path, sim, "interval: 1s, deadline: 1s"))
    with started("--config.file", config, LOOPBACK, wrapper='ulimit -n 40; exec "$@"') as running:
        running.wait_for("first poll is complete")
        assert "process_max_fds 40.0" in get(f"{running.url()}/metrics")[1].splitlines()
        with connected(running, 200, b"", WHOLE[:9]):
            running.wait_for("too many open files; accepting is paused.*ulimit -n")
            wait_until(lambda: can_get(f"{running.url()}/metrics"), "a scrape is answered")
            wait_until(lambda: can_get(f"{running.url()}/-/healthy"), "health is answered")
        asked = len(sim.requests)
        wait_until(lambda: len(sim.requests) > asked + 1 and up(running), "polls go on")
        assert running.stderr.count("too many open files; accepting is paused") == 1
        assert running.end() == 0


@pytest.mark.fault(130)
def test_without_a_descriptor_accepting_pauses_and_then_answers_those_that_waited(
    tmp_path: Path, sim: Simulator
) -> None:
    with started("--config.file", str(config_file(tmp_path, sim)), LOOPBACK) as running:
        running.wait_for("first poll is complete")
        assert up(running)
        limit(running, resource.RLIMIT_NOFILE, 3)
        with connected(running, 5, WHOLE) as waiting:
            running.wait_for("too many open files; accepting is paused.*ulimit -n")
            before = cpu_seconds(running)
            for client in waiting:
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(1)
                client.settimeout(DEADLINE_SECONDS)
            assert cpu_seconds(running) - before < 0.5  # of one second
            limit(running, resource.RLIMIT_NOFILE, 256)
            assert all(rest_of(client).startswith(b"HTTP/1.1 200 ") for client in waiting)
        assert running.end() == 0


# --- threads


@pytest.mark.fault(131)
def test_where_no_thread_can_be_started_it_ends_with_one_line(
    tmp_path: Path, sim: Simulator
) -> None:
    words = ("--config.file", str(config_file(tmp_path, sim)), LOOPBACK)
    with started(*words, wrapper=f'{LARGE_STACKS}; ulimit -v 1000000; exec "$@"') as running:
        assert running.code(DEADLINE_SECONDS) == 1
    assert running.stderr == (
        "exophone-exporter: cannot start a thread for each account; raise the limit of"
        " processes (ulimit -u, TasksMax=, --pids-limit) or of memory\n"
    )
    assert sim.requests == []


@pytest.mark.fault(131)
def test_what_needs_a_thread_is_refused_and_the_rest_goes_on(
    tmp_path: Path, sim: Simulator
) -> None:
    """A probe and a new account are refused; scrapes, polls and health need no new thread."""
    file = config_file(tmp_path, sim, "interval: 1s, deadline: 1s")
    words = ("--config.file", str(file), LOOPBACK, "--web.enable-lifecycle")
    with started(*words, wrapper=f'{LARGE_STACKS}; exec "$@"') as running:
        running.wait_for("first poll is complete")
        probe = f"{running.url()}/probe?target={sim.world.accounts['acme'].numbers[0]['sid']}"
        limit(running, resource.RLIMIT_AS, address_space(running) + 200 * MIB)
        assert get(probe)[0] == 503
        file.write_text(file.read_text("utf-8").replace("name: acme", "name: two"), "utf-8")
        running.send(signal.SIGHUP)
        running.wait_for("the configuration was not reloaded.*no thread can be started")
        asked = len(sim.requests)
        wait_until(lambda: len(sim.requests) > asked and up(running), "polls go on")
        assert get(f"{running.url()}/-/healthy")[0] == 200
        limit(running, resource.RLIMIT_AS, resource.RLIM_INFINITY)
        assert "exophone_probe_success 1.0" in get(probe)[1].splitlines()
        running.send(signal.SIGHUP)
        running.wait_for("was reloaded.* added=two removed=acme")
        assert running.end() == 0


# --- memory


def failures_of(page: str) -> int:
    found = re.search(r'exophone_poll_failures_total{account="acme",reason="internal"} (\d+)', page)
    assert found
    return int(found[1])


@pytest.mark.fault(134)
def test_page_too_large_for_the_memory_is_one_failed_poll(tmp_path: Path) -> None:
    """7 MiB that hold one letter beyond the basic plane take 28 MiB as text, which there are not.

    It is asked for once; the numbers of before stay, and the next poll is as good as any.
    """
    good = ok(json.dumps({"incoming_phone_numbers": [{"sid": "a"}]}).encode())
    large = ok(b'{"incoming_phone_numbers": [{"sid": "\xf0\x9f\x98\x80' + b"x" * 7 * MIB + b'"}]}')
    given = [good]

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        given.append(given[0])
        conversation.send(given[0])

    with FaultServer(script) as server:
        file = tmp_path / "exophone.yml"
        file.write_text(
            "poll: {interval: 2s, deadline: 2s, requests_per_minute: 10000}\naccounts:\n"
            f"  - {{name: acme, sid: acme, base_url: '{server.url}', api_key: k, api_token: t}}\n",
            encoding="utf-8",
        )
        # With one heap for all threads what it has is what it uses; else each keeps some in hand.
        one_heap = {"MALLOC_ARENA_MAX": "1"}
        with started("--config.file", str(file), LOOPBACK, env=one_heap) as running:
            running.wait_for("first poll is complete")
            limit(running, resource.RLIMIT_AS, address_space(running) + 24 * MIB)
            given[0] = large
            running.wait_for("a defect in the exporter.*account=acme")
            running.wait_for("the poll failed.*account=acme")
            page = get(f"{running.url()}/metrics")[1]
            given[0] = good
            running.wait_for("the poll works again.* numbers=1")
            failures = failures_of(get(f"{running.url()}/metrics")[1])
            running.send(signal.SIGTERM)
            assert running.process.wait(DEADLINE_SECONDS) == 0
    assert failures_of(page) >= 1
    assert 'exophone_up{account="acme"} 0.0\n' in page
    assert page.count("\nexophone_number_info{") == 1
    assert given.count(large) == failures
    assert "MemoryError" in running.stderr


# --- a thread that dies

# Python does not report the death of a thread; this signal raises an unexpected error in a poller.
_KILL_THE_POLLER: Final = """
import ctypes, signal, threading
def kill(*_):
    (poller,) = (t for t in threading.enumerate() if t.name == "poller acme")
    raised = ctypes.py_object(SystemExit)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(poller.ident), raised)
signal.signal(signal.SIGUSR1, kill)
"""


@pytest.mark.fault(120)
def test_death_of_a_poller_ends_the_process_with_1(tmp_path: Path, sim: Simulator) -> None:
    """A service manager starts it again; the log says which account it was."""
    config = str(config_file(tmp_path, sim, "interval: 1s, deadline: 1s"))
    env = hooked(tmp_path, _KILL_THE_POLLER)
    with started("--config.file", config, LOOPBACK, env=env) as running:
        running.wait_for("first poll is complete")
        running.send(signal.SIGUSR1)
        running.wait_for("level=error.*a poller died.*account=acme")
        assert running.process.wait(DEADLINE_SECONDS) == 1


# --- names, files, users, zones


@pytest.mark.fault(121)
def test_no_name_is_looked_up_to_listen(tmp_path: Path, sim: Simulator) -> None:
    """A name server that hangs would hang the start: here every question ends the process."""
    ask = "('socket.gethostbyaddr', 'socket.gethostbyname', 'socket.getnameinfo')"
    env = hooked(
        tmp_path,
        "import os, sys\n"
        f"sys.addaudithook(lambda event, _: os._exit(9) if event in {ask} else None)\n",
    )
    config = str(config_file(tmp_path, sim))
    with started("--config.file", config, "--web.listen-address=:0", env=env) as running:
        running.wait_for("first poll is complete")
        assert up(running)
        assert running.end() == 0


@pytest.mark.fault(135)
def test_nothing_is_ever_opened_for_writing_created_or_moved(
    tmp_path: Path, sim: Simulator
) -> None:
    """But for what Python keeps of its own modules: polls, scrapes, pages, a reload and the end."""
    changes = "'os.mkdir', 'os.rename', 'os.remove', 'os.link', 'os.symlink', 'os.truncate'"
    env = hooked(
        tmp_path,
        "import os, sys\n"
        "sys.dont_write_bytecode = True\n"
        "writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT\n"
        "def see(event, args):\n"
        "    opened = event == 'open' and isinstance(args[2], int) and args[2] & writing\n"
        f"    if opened or event in ({changes}):\n"
        "        print('changed:', event, args, flush=True)\n"
        "sys.addaudithook(see)\n"
        "open('/dev/full', 'w').close()\n",  # to show that it sees
    )
    config = str(config_file(tmp_path, sim))
    with started("--config.file", config, LOOPBACK, env=env) as running:
        running.wait_for("first poll is complete")
        for path in ("/metrics", "/", "/docs", "/-/ready", "/probe?target=nobody"):
            assert get(f"{running.url()}{path}")[0] == 200
        running.send(signal.SIGHUP)
        running.wait_for("the configuration was reloaded")
        assert running.end() == 0
    changed = [line for line in running.stdout.splitlines() if "'/dev/null'" not in line]
    assert [line for line in changed if "'/dev/full'" not in line] == []
    assert len(changed) == 1


@pytest.mark.end_to_end
@pytest.mark.fault(135)
def test_user_that_the_system_does_not_know_may_run_it(
    tmp_path: Path, sim: Simulator, program: Callable[[str], str]
) -> None:
    """As in a container that is run with a number for a user."""
    wrapper = f'exec {program("unshare")} --user --map-user=54321 -- "$@"'
    words = ("--config.file", str(config_file(tmp_path, sim)), LOOPBACK)
    with started(*words, wrapper=wrapper, cwd=tmp_path) as running:
        running.wait_for("first poll is complete")
        mapped = Path(f"/proc/{running.pid}/uid_map").read_text(encoding="ascii").split()
        assert mapped[0] == "54321"
        assert up(running)
        assert running.end() == 0


@pytest.mark.fault(128)
@pytest.mark.parametrize(
    "zone",
    [
        pytest.param({"TZ": "America/St_Johns"}, id="half-hours"),
        pytest.param({"TZ": "EST5EDT,M3.2.0,M11.1.0"}, id="rule"),
        pytest.param({"TZ": ":no/such/zone"}, id="unknown"),
        pytest.param({"TZ": ""}, id="empty"),
        pytest.param({}, id="unset"),
    ],
)
def test_zone_of_the_machine_changes_nothing(
    tmp_path: Path, sim: Simulator, zone: dict[str, str]
) -> None:
    """The times of the numbers are of the account's zone, those of the log in UTC."""
    sim.fail(Fault(status=503, times=1))
    config = str(config_file(tmp_path, sim))
    ended = run("once", "--config.file", config, "--log.level=debug", env=zone)
    found = re.findall(r"exophone_number_created_timestamp_seconds\{.*\} (.*)", ended.stdout)
    numbers = sim.world.accounts["acme"].numbers
    assert sorted(map(float, found)) == sorted(
        datetime.fromisoformat(f"{number['date_created']}+05:30").timestamp() for number in numbers
    )
    (time,) = {*re.findall(r"^time=(\S+) .*asking again", ended.stderr, re.MULTILINE)}
    assert time.endswith("Z")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(time)) < timedelta(minutes=5)
