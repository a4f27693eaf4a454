"""`once --output`: what is written where, and what it leaves as it was."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from exophone_exporter.simulator import Simulator, World, make_account
from tests.lib.processes import PROGRAM, Ended, config_file, run, started, wait_until

Write = Callable[..., Ended]

UP: Final = 'exophone_up{account="acme"} 1.0\n'
# root with the rights of any other user
WITHOUT_RIGHTS: Final = (
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *PROGRAM]
    if os.geteuid() == 0
    else PROGRAM
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Simulator(World(make_account("acme", 3))) as sim:
        yield str(config_file(tmp_path_factory.mktemp("config"), sim))


@pytest.fixture
def write(config: str, tmp_path: Path) -> Write:
    """Runs `once --output` in a folder of its own."""

    def call(path: str, **options: Any) -> Ended:
        words = ("once", "--config.file", config, "--output", path)
        return run(*words, cwd=tmp_path, **options)

    return call


def test_a_name_that_no_collector_reads_is_a_warning(write: Write, tmp_path: Path) -> None:
    ended = write("x.txt")
    assert (ended.code, ended.stderr.count("\n")) == (0, 1)
    assert "x.txt: node_exporter only reads files whose names end in .prom" in ended.stderr
    assert UP in (tmp_path / "x.txt").read_text("utf-8")


def test_a_file_is_replaced_as_a_whole_and_keeps_its_attributes(
    write: Write, tmp_path: Path
) -> None:
    """A reader of the old file has all of it, whatever the umask; the time is that of the write."""
    file = tmp_path / "x.prom"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o640)
    os.utime(file, (0, 0))
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(file, "user.note", b"kept")
    attributes = os.listxattr(file)
    with file.open(encoding="utf-8") as reader:
        ended = write("x.prom", umask=0o077)
        assert reader.read() == "old"
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
    after = file.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, *owner)
    assert after.st_mtime > 0
    assert os.listxattr(file) == attributes
    assert UP in file.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_has_the_mode_of_the_umask(
    write: Write, tmp_path: Path, umask: int, mode: int
) -> None:
    assert write("x.prom", umask=umask).code == 0
    assert stat.S_IMODE((tmp_path / "x.prom").stat().st_mode) == mode


@pytest.mark.fault(212)
@pytest.mark.parametrize("exists", [True, False], ids=["existing", "dangling"])
@pytest.mark.parametrize("links", [["other/x.prom"], ["first", "../{0}/other/x.prom"]])
def test_a_symbolic_link_stays_and_its_target_is_written(
    write: Write, tmp_path: Path, links: list[str], exists: bool
) -> None:
    target = tmp_path / "other" / "x.prom"
    target.parent.mkdir()
    if exists:
        target.write_text("old", encoding="utf-8")
    for name, to in zip(["link", "first"], links, strict=False):
        (tmp_path / name).symlink_to(to.format(tmp_path.name))
    assert write("link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert UP in target.read_text(encoding="utf-8")
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.fault(212)
@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_it_may_be_stdout(write: Write, tmp_path: Path, path: str) -> None:
    """Also where that is a file to which a shell appends."""
    ended = write(path)
    assert (ended.code, UP in ended.stdout) == (0, True)
    log = tmp_path / "log"
    log.write_text("before\n", encoding="utf-8")
    with log.open("a", encoding="utf-8") as stdout:
        assert write(path, stdout=stdout).code == 0
    assert log.read_text(encoding="utf-8").startswith("before\n# HELP")
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.fault(212)
def test_a_pipe_is_written_and_stays(write: Write, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text("utf-8")), daemon=True)
    reader.start()
    assert write("pipe").code == 0
    reader.join(60)
    assert UP in read[0]
    assert pipe.is_fifo()


def device(path: Path, minor: int) -> None:
    """A second /dev/null or /dev/full: a defect must not take the first."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    except PermissionError:
        pytest.skip("only root makes devices")


def test_a_device_is_written_and_stays(write: Write, tmp_path: Path) -> None:
    device(tmp_path / "null", 3)
    assert write("null").code == 0
    assert (tmp_path / "null").is_char_device()


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))  # the path of a socket is short


def belong_to_another(path: Path) -> None:
    path.touch()
    try:
        os.chown(path, 12345, 54321)
    except PermissionError:
        pytest.skip("only root gives files away")


@pytest.mark.fault(213)
@pytest.mark.parametrize(
    ("path", "make", "reason"),
    [
        ("folder", Path.mkdir, "Is a directory"),
        ("gone/x.prom", lambda _: None, "No such file or directory"),
        ("locked/x.prom", lambda path: path.parent.mkdir(0o555), "Permission denied"),
        ("loop", lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        ("pipe", os.mkfifo, "it is a FIFO that no program reads, or a socket"),
        ("socket", bind, "it is a FIFO that no program reads, or a socket"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_no_temporary_file(
    write: Write, tmp_path: Path, path: str, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / path)
    assert_refused(write, tmp_path, path, reason)


@pytest.mark.parametrize(
    ("path", "make", "reason"),
    [
        ("full", lambda path: device(path, 7), "No space left on device"),
        (
            "foreign",
            belong_to_another,
            "its owner and group would change; run as user 12345 and as a member of group 54321",
        ),
    ],
)
def test_what_only_root_can_prepare_is_refused_too(
    write: Write, tmp_path: Path, path: str, make: Callable[[Path], None], reason: str
) -> None:
    """Apart: an ordinary user skips these, and a row of the faults lets no test be skipped."""
    make(tmp_path / path)
    assert_refused(write, tmp_path, path, reason)


def assert_refused(write: Write, tmp_path: Path, path: str, reason: str) -> None:
    before = [*tmp_path.rglob("*")]
    ended = write(path, program=WITHOUT_RIGHTS)
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr == f"exophone-exporter: cannot write {path}: {reason}\n"
    assert [*tmp_path.rglob("*")] == before


@pytest.mark.fault(213)
def test_a_disk_that_becomes_full_leaves_the_previous_file(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    file.write_text("old", encoding="utf-8")
    ended = write("x.prom", program=["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *PROGRAM])
    assert (ended.code, ended.stderr) == (
        1,
        "exophone-exporter: cannot write x.prom: File too large\n",
    )
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.fault(210)
def test_a_signal_in_the_middle_leaves_no_temporary_file(config: str, tmp_path: Path) -> None:
    """The disk is slow: this Python waits for it for ever."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, threading\nos.fsync = lambda _: threading.Event().wait()\n", encoding="utf-8"
    )
    folder = tmp_path / "textfiles"
    folder.mkdir()
    words = ("once", "--config.file", config, "--output", str(folder / "x.prom"))
    with started(*words, env={"PYTHONPATH": f"{hook}:{Path.cwd()}"}) as running:
        wait_until(lambda: [*folder.iterdir()], "a temporary file")
        assert running.end() == 143
    assert [*folder.iterdir()] == []
