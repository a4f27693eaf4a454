"""Asking for a reload: by signal or by POST, many together, and with files that are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from exophone_exporter.config import loader as configuration
from exophone_exporter.config.files import read_file
from exophone_exporter.config.settings import Config
from exophone_exporter.errors import ConfigError, StartError
from exophone_exporter.polling import reload as reload_module
from exophone_exporter.polling.accounts import ReloadSummary
from exophone_exporter.polling.exporter import Exporter
from exophone_exporter.polling.reload import ConfigFiles, Outcome, Reloader
from exophone_exporter.simulator import Simulator, World, make_account
from exophone_exporter.web.reload import endpoint
from tests.lib.processes import DEADLINE_SECONDS, LOOPBACK, config_file, get, started
from tests.lib.servers import Site, serving_app
from tests.lib.support import FakeTime, account

KEY, TOKEN = "canary-key-5Hs8", "canary-token-1Vn4"
SUMMARY = ReloadSummary(added=("c",), removed=("a",), changed=("d", "e"), kept=("b",))
CONFIG = Config("test", (account(),), ("a warning",))


@dataclass
class FakeExporter:
    """Counts reloads and notes their outcomes; `error` is what the next reload raises."""

    error: Exception | None = None
    noted: list[bool] = field(default_factory=list)
    reloads: int = 0

    def reload(self, config: Config) -> ReloadSummary:
        assert config is CONFIG
        self.reloads += 1
        if self.error is not None:
            raise self.error
        return SUMMARY

    def note_reload(self, *, successful: bool) -> None:
        self.noted.append(successful)


class HeldLoad:
    """A configuration that is read only when the test releases it, each time."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.count = 0

    def __call__(self) -> Config:
        self.count += 1
        self.begun.release()
        assert self.go_on.acquire(timeout=DEADLINE_SECONDS)
        return CONFIG


def reloader_of(load: Callable[[], Config], exporter: Any = None, note: str = "") -> Reloader:
    exporter = FakeExporter() if exporter is None else exporter
    return Reloader(load, exporter, FakeTime().clock, note=note)


def outcomes_of(count: int, load: Callable[[], Config], exporter: Any = None) -> list[Outcome]:
    async def reload() -> list[Outcome]:
        reloader = reloader_of(load, exporter)
        return [await reloader.request() for _ in range(count)]

    return asyncio.run(reload())


def refuse(*problems: str) -> Callable[[], Config]:
    def load() -> Config:
        raise ConfigError(problems)

    return load


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (r.levelname, r.getMessage(), vars(r).get("fields", {}))
        for r in caplog.records
        if r.name != "asyncio"
    ]


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="exophone_exporter")


class TestOutcome:
    def test_success_is_noted_and_logged_in_one_line_after_the_warnings(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        exporter = FakeExporter()
        assert outcomes_of(2, lambda: CONFIG, exporter) == [SUMMARY] * 2
        assert (exporter.reloads, exporter.noted) == (2, [True, True])
        about = {"added": "c", "removed": "a", "changed": "d e", "kept": 1, "duration_seconds": 0.0}
        assert logged(caplog) == [
            ("WARNING", "a warning", {}),  # once
            *[("INFO", "the configuration was reloaded", about)] * 2,
        ]

    @pytest.mark.fault(105)
    def test_bad_file_reaches_no_exporter_and_each_problem_is_one_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        exporter, problems = FakeExporter(), ("f:1: x", "f:2: y")
        assert outcomes_of(1, refuse(*problems), exporter) == [problems]
        assert (exporter.reloads, exporter.noted) == (0, [False])
        assert logged(caplog) == [
            ("ERROR", "the configuration was not reloaded", {"problem": problem})
            for problem in problems
        ]

    def test_exporter_that_cannot_follow_is_a_failure_too(self) -> None:
        exporter = FakeExporter(StartError("no thread"))
        assert outcomes_of(1, lambda: CONFIG, exporter) == [("no thread",)]
        assert exporter.noted == [False]

    @pytest.mark.fault(116)
    def test_credentials_in_a_problem_are_not_shown(self) -> None:
        """Messages should hold none; this is the second net."""
        [outcome] = outcomes_of(1, refuse(f"https://{KEY}:{TOKEN}@host/: x"))
        assert outcome == ("https://<secret>@host/: x",)

    def test_defect_is_a_failure_without_its_message_and_the_next_reload_works(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An unforeseen error's message might be a secret; where it arose is in the log."""
        errors = iter([ValueError(KEY)])

        def load() -> Config:
            for error in errors:
                raise error
            return CONFIG

        exporter = FakeExporter()
        first, second = outcomes_of(2, load, exporter)
        assert first == ("a defect in the exporter (ValueError), see the log",)
        assert (second, exporter.noted) == (SUMMARY, [False, True])
        (defect,) = (
            fields for _, text, fields in logged(caplog) if text == "a defect in the exporter"
        )
        assert "in load" in defect["traceback"]
        assert KEY not in caplog.text + str(logged(caplog))

    def test_gauge_that_cannot_be_set_is_a_defect_and_ends_nothing(self) -> None:
        class Broken(FakeExporter):
            def note_reload(self, *, successful: bool) -> None:
                super().note_reload(successful=successful)
                raise MemoryError

        exporter = Broken()
        problems = ("a defect in the exporter (MemoryError), see the log",)
        assert outcomes_of(2, lambda: CONFIG, exporter) == [problems] * 2
        assert exporter.noted == [True, True]


@pytest.mark.fault(116, 119)
def test_requests_during_a_reload_share_one_more_that_begins_later() -> None:
    """A reload that has begun may have read the file before it was changed."""
    load = HeldLoad()

    async def begun() -> bool:
        return await asyncio.to_thread(load.begun.acquire, timeout=DEADLINE_SECONDS)

    async def reload() -> None:
        reloader = reloader_of(load)
        first = reloader.request()
        assert await begun()
        waiting = [reloader.request() for _ in range(5)]
        left = asyncio.ensure_future(asyncio.shield(waiting[0]))
        load.go_on.release()
        assert await first == SUMMARY
        assert await begun()
        left.cancel()  # a client that leaves does not disturb the others
        assert not any(each.done() for each in waiting)
        load.go_on.release()
        assert {await each for each in waiting} == {SUMMARY}

    asyncio.run(reload())
    assert load.count == 2


def ask(site: Site, method: str = "POST", **headers: str) -> tuple[int, str]:
    answer = site.ask("/-/reload", method, **headers)
    assert (answer.headers["Allow"] == "POST") == (answer.status == 405)
    return answer.status, answer.text


@contextlib.contextmanager
def site(reloader: Reloader, *, enabled: bool = True) -> Iterator[Site]:
    route = Route("/-/reload", endpoint(reloader, enabled=enabled), methods=[])
    with serving_app(Starlette(routes=[route])) as port:
        yield Site(port)


@pytest.fixture
def exporter() -> FakeExporter:
    return FakeExporter()


@pytest.fixture
def open_site(exporter: FakeExporter) -> Iterator[Site]:
    with site(reloader_of(lambda: CONFIG, exporter, "A note.")) as running:
        yield running


class TestEndpoint:
    def test_post_reloads_and_says_what_changed(
        self, open_site: Site, exporter: FakeExporter
    ) -> None:
        summary = "added: c\nremoved: a\nchanged: d, e\nkept: b\n"
        assert ask(open_site) == (200, f"The configuration was reloaded.\n{summary}A note.\n")
        assert exporter.reloads == 1

    def test_problems_are_answered_with_500_line_by_line(self) -> None:
        with site(reloader_of(refuse("f:1: x", "f:2: y"))) as running:
            assert ask(running) == (500, "The configuration was not reloaded:\nf:1: x\nf:2: y\n")

    @pytest.mark.fault(116)
    @pytest.mark.parametrize("enabled", [True, False])
    def test_other_methods_are_answered_with_405(
        self, exporter: FakeExporter, enabled: bool
    ) -> None:
        with site(reloader_of(lambda: CONFIG, exporter), enabled=enabled) as running:
            for method in ("GET", "OPTIONS", "PATCH"):
                assert ask(running, method) == (405, "Reload with POST.\n")
        assert exporter.reloads == 0

    @pytest.mark.fault(116)
    def test_not_enabled_it_is_forbidden(self, exporter: FakeExporter) -> None:
        with site(reloader_of(lambda: CONFIG, exporter), enabled=False) as running:
            answer = ask(running)
        assert answer == (403, "Reloading is not enabled; start with --web.enable-lifecycle.\n")
        assert exporter.reloads == 0

    @pytest.mark.fault(116)
    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Sec_Fetch_Site": "?"},
            {"Origin": "http://evil.test", "Host": "x.test"},
            {"Origin": "http://x.test:81", "Host": "x.test"},
            {"Origin": "https://x.test", "Host": "x.test:80"},
            {"Origin": "http://x.test.evil", "Host": "x.test"},
            {"Origin": "null", "Host": "x.test"},
            {"Origin": "", "Host": "x.test"},
            {"Origin": "http://[::1", "Host": "x.test"},
            {"Origin": "http://x.test:99999", "Host": "x.test"},
            {"Origin": "ftp://x.test", "Host": "x.test"},
            {"Origin": "http://", "Host": ":80"},
            {"Origin": "http://evil.test", "Host": "x.test", "Sec_Fetch_Site": "none"},
        ],
    )
    def test_page_of_another_site_cannot_reload(
        self, open_site: Site, exporter: FakeExporter, headers: dict[str, str]
    ) -> None:
        """A form of any page can POST; a browser says where the request comes from."""
        assert ask(open_site, **headers) == (403, "Cross-site requests are not allowed.\n")
        assert exporter.reloads == 0

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec_Fetch_Site": "same-origin"},
            {"Sec_Fetch_Site": "none"},
            {"Origin": "http://x.test:10396", "Host": "x.test:10396"},
            {"Origin": "http://X.test", "Host": "x.test:80"},
            {"Origin": "https://x.test", "Host": "x.test"},
            {"Origin": "http://[::1]:81", "Host": "[::1]:81"},
        ],
    )
    def test_own_page_can(self, open_site: Site, headers: dict[str, str]) -> None:
        assert ask(open_site, **headers)[0] == 200

    def test_loop_serves_others_while_a_reload_reads(self) -> None:
        load = HeldLoad()
        with site(reloader_of(load)) as running, ThreadPoolExecutor(1) as pool:
            held = pool.submit(ask, running)
            assert load.begun.acquire(timeout=DEADLINE_SECONDS)
            assert ask(running, "GET")[0] == 405
            load.go_on.release()
            assert held.result(DEADLINE_SECONDS)[0] == 200


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(World(make_account("acme", 3), make_account("beta", 3))) as running:
        yield running


@pytest.mark.fault(105)
def test_file_that_is_gone_wrong_or_replaced(tmp_path: Path, sim: Simulator) -> None:
    file = config_file(tmp_path, sim)
    good, time = file.read_text("utf-8"), FakeTime()
    exporter = Exporter(configuration.load(str(file), {}), clock=time.clock)
    reloader = Reloader(lambda: configuration.load(str(file), {}), exporter, time.clock)

    async def request() -> Outcome:
        return await reloader.request()

    def reload() -> tuple[tuple[str, ...], list[str], list[str]]:
        time.pass_(100)
        outcome = asyncio.run(request())
        text = exporter.page.body(openmetrics=False, gzipped=False).decode()
        name = "exophone_exporter_config_last_reload"
        gauges = [line.split()[1] for line in text.splitlines() if line.startswith(name)]
        problems = () if isinstance(outcome, ReloadSummary) else outcome
        return problems, gauges, [status.account.name for status in exporter.statuses()]

    old = ["acme", "beta"]
    assert reload() == ((), ["1.0", "1.7000001e+09"], old)
    file.unlink()
    missing = f"{file}: cannot be read: No such file or directory"
    assert reload() == ((missing,), ["0.0", "1.7000001e+09"], old)
    file.write_text("accounts: [", encoding="utf-8")
    problems, gauges, names = reload()
    assert (gauges, names) == (["0.0", "1.7000001e+09"], old)
    assert problems[0].startswith(f"{file}:1: ")
    replacement = tmp_path / ".exophone.yml.swp"
    replacement.write_text(good.rsplit("\n", 2)[0] + "\n", encoding="utf-8")
    replacement.replace(file)
    assert reload() == ((), ["1.0", "1.7000004e+09"], ["acme"])


@pytest.mark.fault(261)
def test_each_change_of_a_file_asks_for_one_reload_and_a_hung_file_blocks_nothing(
    tmp_path: Path,
) -> None:
    """Also when it disappears, comes back, or is a file of a network that does not answer."""
    file, asked = tmp_path / "config", 0
    file.write_bytes(b"a")
    files = ConfigFiles(0)
    assert files.read(str(file), 10) == b"a"

    async def reload() -> None:
        nonlocal asked
        asked += 1

    async def others() -> None:
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    async def asked_after(change: Callable[[], object]) -> int:
        change()
        for _ in range(3):
            files.look(reload)
            await others()
        return asked

    async def hang() -> None:
        file.unlink()
        os.mkfifo(file)
        for _ in range(3):
            files.look(reload)
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 2  # this one, and the one that waits
        await asyncio.to_thread(file.write_bytes, b"c")
        await others()

    async def live() -> None:
        assert await asked_after(lambda: None) == 0
        assert await asked_after(lambda: file.write_bytes(b"b")) == 1
        assert await asked_after(file.unlink) == 2
        assert await asked_after(lambda: file.write_bytes(b"more than ten")) == 2  # still unusable
        assert await asked_after(lambda: file.write_bytes(b"b")) == 3
        await hang()
        assert asked == 4

    asyncio.run(live())


def test_a_file_that_a_poll_is_reading_is_not_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls read the files of secrets, too, in threads of their own."""
    file = tmp_path / "secret"
    file.write_bytes(b"a")
    files = ConfigFiles(0)
    files.read(str(file), 10)
    begun, looked = threading.Event(), threading.Event()

    def read_slowly(path: str, limit_bytes: int) -> bytes:
        if threading.current_thread() is poll:
            begun.set()
            assert looked.wait(60)
        return read_file(path, limit_bytes)

    async def reload() -> None:
        pytest.fail("nothing has changed")

    async def look() -> None:
        files.look(reload)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    monkeypatch.setattr(reload_module, "read_file", read_slowly)
    poll = threading.Thread(target=files.read, args=(str(file), 10))
    poll.start()
    try:
        assert begun.wait(60)
        asyncio.run(look())
    finally:
        looked.set()
        poll.join()


class TestProcess:
    @pytest.mark.fault(261)
    def test_auto_reload_follows_the_links_that_kubernetes_swaps(
        self, tmp_path: Path, sim: Simulator
    ) -> None:
        """And a file that the configuration names and that comes after it."""
        good = config_file(tmp_path, sim).read_text("utf-8")
        fewer = good.rsplit("\n", 2)[0] + "\n"
        secret = tmp_path / "key"
        secret_later = fewer.replace("api_key: acme-key", f"api_key_file: {secret}")
        file = tmp_path / "volume.yml"

        def swap(version: str, text: str) -> None:
            (tmp_path / version).write_text(text, encoding="utf-8")
            (tmp_path / "new").symlink_to(version)
            (tmp_path / "new").replace(file)

        swap("1", good)
        flags = ("--config.enable-auto-reload", "--config.auto-reload-interval=1s")
        with started(
            "--config.file", str(file), *flags, "--web.disable-exporter-metrics", LOOPBACK
        ) as running:
            running.wait_for("first poll is complete.*account=beta")
            swap("2", fewer)
            running.wait_for("the configuration was reloaded.* removed=beta kept=1")
            swap("3", "nonsense: 1\n")
            running.wait_for("level=error.*the configuration was not reloaded.*nonsense")
            text = get(f"{running.url()}/metrics")[1]
            assert "exophone_exporter_config_last_reload_successful 0.0" in text.splitlines()
            assert "\nprocess_" not in text
            assert "\npython_" not in text
            swap("4", secret_later)
            running.wait_for("level=error.*key: cannot be read")
            (tmp_path / "written").write_text("acme-key\n", encoding="utf-8")
            (tmp_path / "written").replace(secret)
            running.wait_for("the configuration was reloaded.* changed=acme")
            assert running.end() == 0
            assert running.stderr.count("nonsense") == 1

    @pytest.mark.fault(105)
    def test_rotated_secret_takes_effect_although_the_file_is_the_same(
        self, tmp_path: Path, sim: Simulator
    ) -> None:
        """By the next poll, with a reload or without; the reload keeps the account."""
        key = tmp_path / "key"
        key.write_text("acme-key\n", encoding="utf-8")
        file = tmp_path / "exophone.yml"
        file.write_text(
            "poll: {interval: 1s, deadline: 1s, requests_per_minute: 10000}\naccounts:\n"
            f"  - {{name: acme, sid: acme, base_url: '{sim.url}',"
            f" api_key_file: {key}, api_token: acme-token}}\n",
            encoding="utf-8",
        )
        with started("--config.file", str(file), LOOPBACK) as running:
            running.wait_for("first poll is complete")
            sim.world.accounts["acme"].api_key = "rotated"
            running.wait_for("the poll failed.*reason=auth")
            key.write_text("rotated\n", encoding="utf-8")
            running.send(signal.SIGHUP)
            running.wait_for("the configuration was reloaded.* kept=1")
            running.wait_for("the poll works again")
            assert running.end() == 0

    def test_reload_says_that_variables_stay_as_they_are(self, sim: Simulator) -> None:
        """They alone describe an account, which is called by its sid: `docker run -e ...`."""
        env = {
            "EXOTEL_ACCOUNT_SID": "beta",
            "EXOTEL_API_KEY": "beta-key",
            "EXOTEL_API_TOKEN": "beta-token",
            "EXOTEL_BASE_URL": sim.url,
        }
        with started(LOOPBACK, "--web.enable-lifecycle", env=env) as running:
            running.wait_for("first poll is complete.*account=beta numbers=3")
            status, text = ask(Site(int(running.url().rpartition(":")[2])))
            assert status == 200
            assert "kept: beta\n" in text
            assert text.endswith("a change of the variables themselves requires a restart.\n")
            running.wait_for("was reloaded.*variables themselves requires a restart")
            assert running.end() == 0

    def test_end_does_not_wait_for_a_reload_that_hangs(
        self, tmp_path: Path, sim: Simulator
    ) -> None:
        """As when the file is on a network that is gone."""
        file = config_file(tmp_path, sim)
        with started("--config.file", str(file), LOOPBACK, "--web.enable-lifecycle") as running:
            running.wait_for("first poll is complete.*account=beta")
            file.unlink()
            os.mkfifo(file)
            running.send(signal.SIGHUP)
            assert get(f"{running.url()}/-/ready")[0] == 200
            assert running.end() == 0
