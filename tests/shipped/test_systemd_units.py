"""The units of deploy/systemd, as systemd itself reads them; systemd need not run for it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exophone_exporter.config import loader
from tests.lib.paths import ROOT
from tests.lib.processes import ended, output_of, run

UNITS = ROOT / "deploy" / "systemd"
SERVICE = UNITS / "exophone-exporter.service"
MANUAL = (ROOT / "docs" / "systemd.md").read_text("utf-8")
DROP_INS = re.findall(r"```ini\n(.*?)```", MANUAL, re.DOTALL)


def verified(program: Callable[[str], str], folder: Path, drop_in: str) -> str:
    """The output of `systemd-analyze verify` on the units, with a program that exists."""
    for unit in UNITS.glob("exophone-exporter.*"):
        shutil.copy(unit, folder)
    service = folder / SERVICE.name
    service.write_text(_existing(service.read_text("utf-8")), "utf-8")
    (folder / f"{SERVICE.name}.d").mkdir()
    (folder / f"{SERVICE.name}.d" / "override.conf").write_text(_existing(drop_in), "utf-8")
    command = (program("systemd-analyze"), "verify", "--recursive-errors=no", service)
    done = ended(*command, env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"})
    return f"{done.stdout}{done.stderr}" + (f"exit {done.code}" if done.code else "")


def _existing(unit: str) -> str:
    return re.sub(r"ExecStart=(/\S+)", f"ExecStart={sys.executable}", unit)


@pytest.mark.end_to_end
@pytest.mark.parametrize("drop_in", ["", *DROP_INS], ids=range(len(DROP_INS) + 1))
def test_systemd_accepts_the_units_and_the_drop_ins_of_the_manual(
    program: Callable[[str], str], tmp_path: Path, drop_in: str
) -> None:
    """Type=notify-reload is for versions that know it."""
    version = int(output_of(program("systemd-analyze"), "--version").split()[1])
    said = verified(program, tmp_path, drop_in)
    if "notify-reload" in drop_in and version < 253:
        assert "notify-reload" in said
    else:
        assert said == ""


@pytest.mark.end_to_end
def test_the_exposure_of_the_service_is_as_the_manual_says(program: Callable[[str], str]) -> None:
    """At most 1.1 by `systemd-analyze security`, which is OK."""
    words = ("security", "--offline=true", "--threshold=11", SERVICE)
    said = output_of(program("systemd-analyze"), *words)
    exposure = re.search(r"Overall exposure level for \S+: (\S+) (\w+)", said)
    assert exposure is not None
    assert exposure[2] == "OK"
    assert float(exposure[1]) <= 1.1


def test_the_program_knows_the_command_of_the_unit() -> None:
    """It gets as far as the file, and ends with the code that systemd does not restart."""
    command = re.findall(r"(?m)^ExecStart=\S+ (.+)$", SERVICE.read_text("utf-8"))
    done = run(*command[0].split())
    path = "/etc/exophone-exporter/config.yaml"
    assert done.stderr == (
        f"exophone-exporter: {path}: cannot be read: No such file or directory\n"
    )
    assert done.code == 2


def test_systemd_restarts_it_for_ever_unless_its_configuration_is_invalid() -> None:
    """As the manual says; a port may be taken for some minutes."""
    unit = SERVICE.read_text("utf-8")
    assert {"RestartPreventExitStatus=2", "StartLimitIntervalSec=0"} <= {*unit.splitlines()}
    assert "StartLimitBurst" not in unit
    assert "restarts it after five seconds, and never gives up" in MANUAL


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


def test_the_socket_has_the_port_of_the_program() -> None:
    assert "ListenStream=10396\n" in (UNITS / "exophone-exporter.socket").read_text("utf-8")
