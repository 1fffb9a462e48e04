"""What mkdocs does for this site beside its plugins: pages that are made of the code, links, formulas."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import examples
import reference

ROOT = Path(__file__).parents[2]
# pages of the repository that lie outside of docs -> their place in the site
_OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!https?:|#|mailto:)([^()\s#]*)(#[^()\s]*)?\)")
_CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs holds, and put all pages of a folder where nav names the folder."""
    pages: dict[str, str | bytes] = {place: (ROOT / name).read_text("utf-8") for name, place in _OUTSIDE.items()}
    pages |= {"reference/cli.md": reference.command_line(), "reference/parameters.md": reference.parameters()}
    pages |= {f"reference/api/{name}.md": text for name, text in reference.api().items()}
    pages |= {f"examples/{name}": content for name, content in examples.pages(ROOT / "examples").items()}
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    config.nav = _expanded(config.nav, sorted(file.src_uri for file in files.documentation_pages()))
    return files


def _expanded(nav: Any, pages: list[str]) -> Any:
    """Replace ``folder/`` by the pages in it."""
    if isinstance(nav, dict):
        return {title: _expanded(entry, pages) for title, entry in nav.items()}
    if isinstance(nav, list):
        parts = [_expanded(entry, pages) for entry in nav]
        return [one for part in parts for one in (part if isinstance(part, list) else [part])]
    if isinstance(nav, str) and nav.endswith("/"):
        return [page for page in pages if posixpath.dirname(page) == nav.rstrip("/")]
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to where pages lie in the site; what is only in the repository becomes plain text."""
    places = {place: name for name, place in _OUTSIDE.items()}
    # the folder of the page in the repository, where its links start
    uri = page.file.src_uri
    here = posixpath.dirname(places.get(uri, uri if uri.startswith("examples/") else f"docs/{uri}"))

    def moved(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(here, target))
        place = _OUTSIDE.get(path, path.removeprefix("docs/"))
        if place.startswith("examples/"):
            place = place.replace(".py", ".md")
        if (ROOT / path).is_dir():
            pages = sorted(file.src_uri for file in files.documentation_pages())
            place = next((name for name in pages if name.startswith(f"{place}/")), place)
        if files.get_file_from_path(place) is None and (ROOT / path).exists():
            return text  # a file of the repository, named by its text
        return f"{picture}[{text}]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{anchor})"

    # code is left alone
    parts = _CODE.split(markdown)
    return "".join(part if index % 2 else _LINK.sub(moved, part) for index, part in enumerate(parts))


def on_page_content(html: str, **_: Any) -> str:
    """Set formulas as MathML, which browsers draw themselves; drop the roles of names in docstrings."""

    def drawn(formula: re.Match[str]) -> str:
        latex = formula[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return latex2mathml.converter.convert(latex, display="block" if formula[2] == "[" else "inline")

    return _ROLE.sub("<code>", _FORMULA.sub(drawn, html))
