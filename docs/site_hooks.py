"""Hooks of mkdocs: pages of the repository's top folder, and files that pages link to.

On a forge every link is relative to the repository. The site has the same pages and copies of the
files; a link to a folder becomes plain text, as a site cannot list one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
_TOP: Final = {"README.md": "index.md"} | {
    name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
}
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top folder, and every file outside docs/ that a page links to."""
    for name, uri in _TOP.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    for page in files.documentation_pages():
        folder = _folder(page.src_uri)
        for match in _LINK.finditer(page.content_string):
            path = (folder / match[3]).resolve()
            uri = _uri(path)
            if path.is_file() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point the links of a page to the pages and files of the site."""
    folder = _folder(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups()
        path = (folder / target).resolve()
        return text if path.is_dir() else f"{mark}[{text}]({_uri(path)}{anchor or ''})"

    return _LINK.sub(moved, markdown)


def _folder(uri: str) -> Path:
    """The folder that the links of a page are relative to."""
    return ROOT if uri in _TOP.values() else ROOT / "docs"


def _uri(path: Path) -> str:
    """Where the site has a file of the repository; all pages are in its top folder."""
    name = os.path.relpath(path, ROOT)
    if name in _TOP:
        return _TOP[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"files/{name}".replace("/.", "/")  # mkdocs leaves out hidden files
