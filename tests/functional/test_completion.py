"""Completion as it is used: real shells, the real script, and what they offer."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.processes import environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMANDS = {"serve", "demo", "simulate", "check-config", "once", "numbers", "number"}
_DEADLINE_SECONDS = 20.0
_BASH = """
source "$1"; shift
read -r -a registered <<< "$(complete -p exophone-exporter)"
for ((i = 0; i < ${#registered[@]}; i++)); do
  [[ ${registered[i]} == -F ]] && function=${registered[i + 1]}
done
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"$function" exophone-exporter "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# What is typed, the last word unfinished, and what is offered. Flags of `serve` need no command.
CASES = [
    ("nu", {"numbers", "number"}),
    ("numbers --unat", {"--unattached"}),
    ("numbers --format ", {"table", "json", "csv"}),
    ("--web.lis", {"--web.listen-address"}),
    ("serve --shar", {"--shard"}),
    ("check-config --log.level w", {"warn"}),
]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file that the program prints for a shell."""

    def write(shell: str) -> Path:
        ended = run(f"--completion-script-{shell}")
        assert (ended.code, ended.stderr) == (0, "")
        file = tmp_path_factory.mktemp(shell) / "completion"
        file.write_text(ended.stdout, "utf-8")
        return file

    return write


def output_of(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(HOME=str(cwd)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def in_bash(bash: str, script: Path, line: str, cwd: Path) -> set[str]:
    """What a fresh bash offers at the end of this line."""
    words = f"exophone-exporter {line}".split(" ")
    return set(output_of(bash, "--norc", "-c", _BASH, "bash", script, *words, cwd=cwd).split())


def test_bash_offers_what_fits(
    program: Callable[[str], str], script: Callable[[str], Path], tmp_path: Path
) -> None:
    """A file where a flag wants one, and where check-config does."""
    (tmp_path / "exophone.yml").touch()
    bash, file = program("bash"), script("bash")
    assert in_bash(bash, file, "", tmp_path) >= COMMANDS
    wants_file = ("--config.file exo", "once --config.file exo", "check-config exo")
    for line, offered in [*CASES, *((line, {"exophone.yml"}) for line in wants_file)]:
        assert in_bash(bash, file, line, tmp_path) == offered, line


@pytest.mark.end_to_end
def test_fish_offers_what_fits(
    program: Callable[[str], str], script: Callable[[str], Path], tmp_path: Path
) -> None:
    fish, file = program("fish"), script("fish")
    for line, offered in CASES:
        command = f"source {file}; complete -C 'exophone-exporter {line}'"
        shown = output_of(fish, "--no-config", "-c", command, cwd=tmp_path)
        assert {one.split("\t")[0] for one in shown.splitlines()} == offered, line


class Terminal:
    """A shell at a terminal of its own, as a person uses it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = ""

    def type(self, keys: str) -> None:
        self._seen = ""
        os.write(self._descriptor, keys.encode())

    def wait_for(self, text: str) -> None:
        """Read until this was shown since the last keys."""
        ends_at = time.monotonic() + _DEADLINE_SECONDS
        while text not in self._seen:
            readable, _, _ = select.select([self._descriptor], [], [], ends_at - time.monotonic())
            assert readable, f"{text!r} was not shown: {self._seen!r}"
            self._seen += os.read(self._descriptor, 65536).decode(errors="replace")


@contextlib.contextmanager
def terminal(command: list[str], env: dict[str, str], cwd: Path) -> Iterator[Terminal]:
    """A program at a terminal while the block runs."""
    ours, theirs = pty.openpty()
    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True, **streams)
    os.close(theirs)
    try:
        yield Terminal(ours)
    finally:
        process.kill()
        process.wait(_DEADLINE_SECONDS)
        os.close(ours)


@pytest.mark.end_to_end
def test_zsh_completes_a_command_and_a_flag(
    program: Callable[[str], str], script: Callable[[str], Path], tmp_path: Path
) -> None:
    """Typed at a terminal, since zsh completes nowhere else."""
    env = environment(TERM="dumb", HOME=str(tmp_path), PS1="> ")
    with terminal([program("zsh"), "-f", "-i"], env, tmp_path) as zsh:
        zsh.type("autoload -Uz compinit && compinit -u -D && echo lo''aded\n")
        zsh.wait_for("loaded")
        zsh.type(f'eval "$(cat {script("zsh")})" && echo kno""wn\n')
        zsh.wait_for("known")
        zsh.type("echo; exophone-exporter simu\t")
        zsh.wait_for("exophone-exporter simulate ")
        zsh.type("--fail\t")
        zsh.wait_for("--failure-rate")


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_shtab_is_imported_for_nothing_else(word: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "exophone_exporter", word]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "exophone_exporter.cli.main" in done.stderr
    assert "shtab" not in done.stderr
