"""Completion as it is used: real shells, the real script, and what they offer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.processes import environment, output_of, run

COMMANDS = {"serve", "demo", "simulate", "check-config", "once", "numbers", "number"}
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
    def write(shell: str) -> Path:
        ended = run(f"--completion-script-{shell}")
        assert (ended.code, ended.stderr) == (0, "")
        file = tmp_path_factory.mktemp(shell) / "completion"
        file.write_text(ended.stdout, "utf-8")
        return file

    return write


def in_bash(bash: str, script: Path, line: str, cwd: Path) -> set[str]:
    words = f"exophone-exporter {line}".split(" ")
    env = environment(HOME=str(cwd))
    said = output_of(bash, "--norc", "-c", _BASH, "bash", script, *words, cwd=cwd, env=env)
    return set(said.split())


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
    fish, file, env = program("fish"), script("fish"), environment(HOME=str(tmp_path))
    for line, offered in CASES:
        command = f"source {file}; complete -C 'exophone-exporter {line}'"
        shown = output_of(fish, "--no-config", "-c", command, cwd=tmp_path, env=env)
        assert {one.split("\t")[0] for one in shown.splitlines()} == offered, line


# zsh completes only at a terminal, which is another zsh here. The quotes keep the echo of what is
# typed from matching.
_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
say() { zpty -w $1 shell $2; zpty -r -m shell seen "*$3*" }
say "" "autoload -Uz compinit && compinit -u -D && echo lo''aded" loaded
say "" "eval \\"\\$(cat $1)\\" && echo kno''wn" known
say -n $'exophone-exporter simu\\t' 'exophone-exporter simulate '
say -n $'--fail\\t' --failure-rate
"""


@pytest.mark.end_to_end
def test_zsh_completes_a_command_and_a_flag(
    program: Callable[[str], str], script: Callable[[str], Path], tmp_path: Path
) -> None:
    command = (program("zsh"), "-f", "-c", _ZSH, "zsh", script("zsh"))
    assert output_of(*command, cwd=tmp_path, env=environment(HOME=str(tmp_path))) == ""


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_shtab_is_imported_for_nothing_else(word: str) -> None:
    command = (sys.executable, "-X", "importtime", "-m", "exophone_exporter", word)
    imported = output_of(*command, env=environment())
    assert "exophone_exporter.cli.main" in imported
    assert "shtab" not in imported
