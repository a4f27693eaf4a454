"""The units of deploy/systemd, as systemd itself reads them; none of this needs it to run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from exophone_exporter.config import loader
from tests.lib.paths import ROOT
from tests.lib.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNITS = ROOT / "deploy" / "systemd"
SERVICE = UNITS / "exophone-exporter.service"
MANUAL = (ROOT / "docs" / "systemd.md").read_text("utf-8")
DROP_INS = re.findall(r"```ini\n(.*?)```", MANUAL, re.DOTALL)
PROGRAMS = re.compile(r"ExecStart=(/\S+)")


def verified(program: Callable[[str], str], folder: Path, drop_in: str = "") -> str:
    """What `systemd-analyze verify` has to say of the units, with a program that is there."""
    for unit in UNITS.glob("exophone-exporter.*"):
        shutil.copy(unit, folder)
    service = folder / SERVICE.name
    service.write_text(_existing(service.read_text("utf-8")), "utf-8")
    if drop_in:
        (folder / f"{SERVICE.name}.d").mkdir()
        (folder / f"{SERVICE.name}.d" / "override.conf").write_text(_existing(drop_in), "utf-8")
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--recursive-errors=no", service],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"},
    )
    return f"{done.stdout}{done.stderr}" + (f"exit {done.returncode}" if done.returncode else "")


def _existing(unit: str) -> str:
    return PROGRAMS.sub(f"ExecStart={sys.executable}", unit)


@pytest.mark.end_to_end
def test_systemd_has_nothing_to_say_of_the_units(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    """No unknown key, no value it ignores."""
    assert verified(program, tmp_path) == ""


@pytest.mark.end_to_end
@pytest.mark.parametrize("number", range(len(DROP_INS)))
def test_systemd_has_nothing_to_say_of_the_drop_ins_in_the_manual(
    program: Callable[[str], str], tmp_path: Path, number: int
) -> None:
    """An operator pastes them; Type=notify-reload is for versions that know it."""
    text = DROP_INS[number]
    said = subprocess.run(
        [program("systemd-analyze"), "--version"], capture_output=True, text=True, check=True
    )
    version = int(said.stdout.split()[1])
    known = verified(program, tmp_path, text)
    if "notify-reload" in text and version < 253:
        assert "notify-reload" in known
    else:
        assert known == ""


@pytest.mark.end_to_end
def test_a_mistake_in_a_unit_would_be_seen(program: Callable[[str], str], tmp_path: Path) -> None:
    """The tests above are of no worth otherwise."""
    assert "'PrivateNonsense'" in verified(program, tmp_path, "[Service]\nPrivateNonsense=yes\n")


@pytest.mark.end_to_end
def test_the_service_is_shut_in(program: Callable[[str], str]) -> None:
    """As `systemd-analyze security` rates it, and as the manual says: at most 1.1, which is OK."""
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", "--threshold=11", SERVICE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    exposure = re.search(r"Overall exposure level for \S+: (\S+) (\w+)", done.stdout)
    assert exposure is not None
    assert exposure[2] == "OK"
    assert float(exposure[1]) <= 1.1


def test_the_command_of_the_unit_is_one_that_the_program_knows() -> None:
    """It gets as far as the file, and ends with the code that is not tried again."""
    command = re.findall(r"(?m)^ExecStart=\S+ (.+)$", SERVICE.read_text("utf-8"))
    ended = run(*command[0].split())
    path = "/etc/exophone-exporter/config.yaml"
    assert ended.stderr == (
        f"exophone-exporter: {path}: cannot be read: No such file or directory\n"
    )
    assert "RestartPreventExitStatus=2\n" in SERVICE.read_text("utf-8")
    assert ended.code == 2


def test_the_configuration_reads_the_credentials_that_the_unit_loads() -> None:
    """The name of the service is part of the path."""
    read: list[str] = []

    def read_file(path: str, _: int) -> bytes:
        read.append(path)
        return b"secret\n"

    text = (UNITS / "config.yaml").read_text("utf-8")
    loaded = loader.parse(text, "config.yaml", {}, read_file)
    assert [(account.name, account.sid) for account in loaded.accounts] == [("support", "acme1")]
    names = re.findall(r"(?m)^LoadCredential=(\w+):", SERVICE.read_text("utf-8"))
    assert names == ["exotel_key", "exotel_token"]
    assert read == [f"/run/credentials/{SERVICE.name}/{name}" for name in names]
    for line in text.splitlines():
        assert "secret" not in line or line.startswith("#")


def test_the_socket_has_the_port_of_the_program() -> None:
    """Whoever changes from one way to the other changes nothing in Prometheus."""
    assert "ListenStream=10396\n" in (UNITS / "exophone-exporter.socket").read_text("utf-8")
