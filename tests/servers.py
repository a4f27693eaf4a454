"""Servers that tests run: our own in a thread, a real Prometheus as a process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from processes import get, wait_until

from exophone_exporter.serving import Server, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE_SECONDS = 10.0


@contextlib.contextmanager
def serving_app(app: Callable[..., Any], **options: Any) -> Iterator[int]:
    """The port of the server that users run, around an application; `options` go to Server."""
    (listening,) = listen(["127.0.0.1:0"])
    server = Server(app, on_signal=lambda: None, **options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


class Prometheus:
    """A Prometheus that runs; its log stands in `log`."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The series of a query as of now: labels and value; none while it does not answer."""
        try:
            status, body = get(f"{self.url}/api/v1/query?query={quote(query)}")
        except OSError:
            return []
        found = json.loads(body)["data"]["result"] if status == 200 else []
        return [(series["metric"], float(series["value"][1])) for series in found]

    def wait_for(self, query: str, count: int) -> list[tuple[dict[str, str], float]]:
        """The series of a query as soon as there are so many."""

        def found() -> list[tuple[dict[str, str], float]]:
            series = self.ask(query)
            return series if len(series) == count else []

        series: list[tuple[dict[str, str], float]] = wait_until(
            found, f"{count} series of {query}", 20
        )
        return series


@contextlib.contextmanager
def prometheus(program: str, folder: Path, configuration: str) -> Iterator[Prometheus]:
    """A real Prometheus with a configuration, on a port and in a folder of its own."""
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(configuration, encoding="utf-8")
    with listen(["127.0.0.1:0"])[0] as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=said, stderr=said) as server,
    ):
        try:
            yield Prometheus(url, log)
        finally:
            server.terminate()
            server.wait(20)


def under_scrape_configs(*jobs: str) -> str:
    """A configuration of Prometheus from jobs as they are pasted, each a list item."""
    lines = [line for job in jobs for line in job.splitlines()]
    return "scrape_configs:\n" + "".join(f"  {line}\n" for line in lines)
