"""Gather what the site is made of into build/site: docs/, the READMEs as first pages, the changes.

The documents are written to be read where they are. Links that leave docs/, or lead to a directory,
are turned here; nothing else is changed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GATHERED = ROOT / "build/site"

#: Documents above docs/, and what they are called on the site.
ABOVE = {"README.md": "index.md", "README.zh-CN.md": "index.zh.md", "CHANGELOG.md": "changelog.md"}
#: Files and directories of docs/ that are no part of the site.
LEFT_OUT = shutil.ignore_patterns("site", "__pycache__", "top.py")
#: The ends of links that are others on the site.
TURNED = {
    "../README.md": "index.md",
    "../README.zh-CN.md": "index.md",
    "../CHANGELOG.md": "changelog.md",
    "examples": "examples/demo.py",
    "examples/container": "examples/container/compose.yaml",
}
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
#: Each README begins with a link to the other: the site has a menu for that.
OTHER_LANGUAGE = re.compile(r"^\[(?:中文|English)\]\(README[^)]*\)\n", re.MULTILINE)


def on_site(text: str) -> str:
    """A document of docs/, with the links as the site has them."""

    def turned(link: re.Match[str]) -> str:
        # Each language has its pages under the same names: what is written for
        # GitHub as page.zh.md is page.md to the site.
        target = TURNED.get(link[1], link[1]).replace(".zh.md", ".md")
        return f"]({target}{link[2] or ''})"

    return LINK.sub(turned, text)


def from_above(text: str) -> str:
    """A document of the top directory, as one of docs/."""

    def turned(link: re.Match[str]) -> str:
        target = "license.txt" if link[1] == "LICENSE" else link[1].removeprefix("docs/")
        return f"]({ABOVE.get(target, target)}{link[2] or ''})"

    return on_site(LINK.sub(turned, OTHER_LANGUAGE.sub("", text)))


def gather(to: Path) -> None:
    """Make the directory anew."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(DOCS, to, ignore=LEFT_OUT)
    for page in to.rglob("*.md"):
        page.write_text(on_site(page.read_text(encoding="utf-8")), encoding="utf-8")
    for source, name in ABOVE.items():
        text = from_above((ROOT / source).read_text(encoding="utf-8"))
        (to / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "LICENSE", to / "license.txt")


if __name__ == "__main__":
    gather(GATHERED)
