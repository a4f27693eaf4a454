"""The documents agree with the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from exophone_exporter.simulator import RecordedRequest, Simulator, World, make_account
from exophone_exporter.simulator.drill import COMMANDS
from tests.lib.paths import ROOT
from tests.lib.processes import BIN, environment, output_of
from tests.lib.queries import unknown_names

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_what_is_derived_from_the_code_is_up_to_date() -> None:
    """A metric or a configuration key that changes takes its documentation along."""
    assert output_of(sys.executable, ROOT / "docs" / "generate.py", "--check") == ""


def test_the_site_has_every_page_and_no_broken_link(tmp_path: Path) -> None:
    """It also loads nothing from another host."""
    quiet = environment(NO_MKDOCS_2_WARNING="1")
    words = ("build", "--quiet", "--site-dir", tmp_path)
    assert output_of(BIN / "mkdocs", *words, cwd=ROOT, env=quiet) == ""
    pages = "".join(path.read_text("utf-8") for path in tmp_path.glob("*.html"))
    assert not re.search(r'(?:src=|<link [^>]*href=)"(?:https?:)?//', pages)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_flags_in_the_documents_exist(document: Path) -> None:
    usage = _usage()
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z.-]+", _code(document))):
        assert flag in usage or flag in _FOREIGN_FLAGS, flag


def test_the_commands_of_the_fire_drill_exist() -> None:
    """Its page lists them all with their parameters, and each of its examples is accepted."""
    page = (ROOT / "docs" / "fire-drill.md").read_text("utf-8")
    rows = re.findall(r"^\| `/-/([\w-]+)` \|[^|]*\|([^|]*)\|", page, re.MULTILINE)
    listed = {name: set(re.findall(r"`([a-z]+)", described)) for name, described in rows}
    for name, command in COMMANDS.items():
        assert set(command.parameters) <= listed.pop(name)
    assert not listed
    simulator = Simulator(World(make_account("acme", 5)))
    for path in re.findall(r"curl -X POST '?localhost:10397([^'\s]+)", page):
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        request = RecordedRequest("POST", parts.path, query, {}, None, 0, 0.0)
        assert simulator.drill.respond(request, "127.0.0.1").status == 200, path


def test_queries_in_the_documents_name_metrics_and_labels_that_exist() -> None:
    rules = (ROOT / "prometheus" / "exophone.rules.yml").read_text("utf-8")
    recorded = re.findall(r"- record: (\S+)", rules)
    found = [(page.name, query) for page in DOCUMENTS for query in _queries(page)]
    wrong = [(page, query) for page, query in found if unknown_names(query, recorded)]
    assert not wrong
    assert len(found) > 10


def _queries(document: Path) -> Iterator[str]:
    """Those in fences, of which each has one or one on each line, in the text, and of rules."""
    text = document.read_text("utf-8")
    for fence in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
        blocks = re.split(r"\n(?=\S)", fence.strip())
        yield from (block for block in blocks if not block.startswith("#"))
    for inline in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if re.search(r"\bexophone_\w+.*[({\[]", inline) and "://" not in inline:
            yield re.sub(r"(?<=}) [\d.]+$", "", inline)  # a sample
    yield from re.findall(r"^\s+expr: ([^|>\n].*)$", text, re.MULTILINE)


# Flags of other programs that the documents show.
_FOREIGN_FLAGS = {
    *("--config.check", "--unit", "--compressed", "--from"),  # promtool, systemctl, curl, uvx
    *("--name", "--restart", "--signal", "--namespace"),  # docker, kubectl
    *("--logs", "--values"),  # helm
}


def _code(document: Path) -> str:
    lines = document.read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if "exophone-exporter " in line)


@cache
def _usage() -> str:
    commands = ("", "serve", "demo", "simulate", "check-config", "once", "numbers", "number")
    program = (sys.executable, "-m", "exophone_exporter")
    return "\n".join(output_of(*program, *command.split(), "--help") for command in commands)


def test_every_row_of_the_security_page_names_tests_that_exist() -> None:
    tests = "".join(path.read_text("utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    rows = re.findall(
        r"^\| (?!.*cannot \|)\w.*", (ROOT / "SECURITY.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) > 20
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        assert [name for name in names if f"def {name}(" not in tests] == [], row
