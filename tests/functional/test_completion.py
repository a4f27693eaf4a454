"""Completion as it is used: real shells, the real script, and what they offer."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

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
CASES = [
    pytest.param(("nu",), {"numbers", "number"}, id="command"),
    pytest.param(("numbers", "--unat"), {"--unattached"}, id="flag-of-a-command"),
    pytest.param(("numbers", "--format", ""), {"table", "json", "csv"}, id="choice"),
    pytest.param(("--web.lis",), {"--web.listen-address"}, id="flag-of-serve-without-it"),
    pytest.param(("serve", "--shar"), {"--shard"}, id="flag-of-serve"),
    pytest.param(("check-config", "--log.level", "w"), {"warn"}, id="choice-of-a-flag-in-common"),
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


def in_bash(bash: str, script: Path, words: tuple[str, ...], cwd: Path) -> set[str]:
    """What a fresh bash would offer where these words stand, the last one unfinished."""
    done = subprocess.run(
        [bash, "--norc", "-c", _BASH, "bash", script, "exophone-exporter", *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


class TestBash:
    @pytest.mark.parametrize(("words", "offered"), CASES)
    def test_it_offers_what_fits(
        self,
        program: Callable[[str], str],
        script: Callable[[str], Path],
        tmp_path: Path,
        words: tuple[str, ...],
        offered: set[str],
    ) -> None:
        assert in_bash(program("bash"), script("bash"), words, tmp_path) == offered

    def test_it_offers_every_command_and_every_file(
        self, program: Callable[[str], str], script: Callable[[str], Path], tmp_path: Path
    ) -> None:
        """A file where a flag wants one, and where check-config does."""
        (tmp_path / "exophone.yml").touch()
        bash, file = program("bash"), script("bash")
        assert in_bash(bash, file, ("",), tmp_path) >= COMMANDS
        for words in (("--config.file",), ("once", "--config.file"), ("check-config",)):
            assert in_bash(bash, file, (*words, "exo"), tmp_path) == {"exophone.yml"}


@pytest.mark.end_to_end
class TestFish:
    @pytest.mark.parametrize(("words", "offered"), CASES)
    def test_it_offers_what_fits(
        self,
        program: Callable[[str], str],
        script: Callable[[str], Path],
        tmp_path: Path,
        words: tuple[str, ...],
        offered: set[str],
    ) -> None:
        line = " ".join(("exophone-exporter", *words))
        done = subprocess.run(
            [
                program("fish"),
                "--no-config",
                "-c",
                f"source {script('fish')}; complete -C '{line}'",
            ],
            env=environment(HOME=str(tmp_path)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert {line.split("\t")[0] for line in done.stdout.splitlines()} == offered


class Terminal:
    """A shell at a terminal of its own, as a person sits at it."""

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
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
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


@pytest.mark.parametrize(
    "word", [pytest.param("--version", id="version"), pytest.param("--help", id="help")]
)
def test_it_is_loaded_for_nothing_else(word: str) -> None:
    """They answer as fast as without it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "exophone_exporter", word],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "exophone_exporter.cli.main" in done.stderr
    assert "shtab" not in done.stderr
