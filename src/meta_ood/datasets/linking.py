"""Linking a real dataset below data/raw without a copy, and entering it in the params file."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from meta_ood.data.files import read_text, write_text

NEEDS_IMAGES = {"fishyscapes_lost_and_found": "LostAndFound", "fishyscapes_static": "Cityscapes"}
"""Reader of labels alone -> the dataset whose images they belong to."""


def link(name: str, source: Path, raw: Path, images: Path | None = None) -> Path:
    """Link a dataset's root below `raw`, and return the link; nothing is copied, nothing of it is changed.

    With `images`, the root whose ``leftImg8bit`` the labels in `source` belong to (see :data:`NEEDS_IMAGES`), a folder
    of links is made. A missing folder, or something else than a link in the way, is an error.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is no folder")
    target = raw / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if images is None:
        _symlink(target, source)
        return target
    pictures = images if images.name == "leftImg8bit" else images / "leftImg8bit"
    if not pictures.is_dir():
        raise FileNotFoundError(f"{pictures} is no folder; expected the images that belong to {source}")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ValueError(f"{target} is in the way: expected no file or link there; remove it")
    target.mkdir(exist_ok=True)
    for child in sorted(source.iterdir()):
        _symlink(target / child.name, child)
    _symlink(target / "leftImg8bit", pictures)
    return target


def show_to_git(link_path: Path, raw: Path) -> None:
    """Except a link from `raw`'s .gitignore: `dvc exp run --temp` and `--queue` copy only what git knows."""
    ignored = raw / ".gitignore"
    name = link_path.relative_to(raw).as_posix()
    wanted = [f"!/{name}"] if link_path.is_symlink() else [f"!/{name}/", f"!/{name}/*"]
    lines = read_text(ignored).splitlines() if ignored.is_file() else ["*", "!.gitignore"]
    if missing := [line for line in wanted if line not in lines]:
        write_text(ignored, "\n".join([*lines, *missing]) + "\n")


def _symlink(link_path: Path, source: Path) -> None:
    if link_path.absolute() == source.absolute():
        return  # it would become a link to itself
    if link_path.is_symlink():
        link_path.unlink()  # an old link: the data behind it are not touched
    if link_path.exists():
        raise ValueError(f"{link_path} is in the way: it is no link; move it aside")
    link_path.symlink_to(source.absolute(), target_is_directory=source.is_dir())


def enter(text: str, name: str, reader: str, root: str, split: str, options: Mapping[str, Any]) -> str:
    """Return a params file's text with an entry under ``datasets``, or with another root in the one that is there."""
    yaml = YAML()  # keeps comments, quotes and the order of keys
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    yaml.width = 4096  # breaks no line
    # else null becomes nothing
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    values = yaml.load(text)
    datasets = values.get("datasets") if isinstance(values, dict) else None
    if not isinstance(datasets, CommentedMap):
        raise ValueError("the params file has no section datasets")
    if name in datasets:
        datasets[name]["root"] = root
    else:
        entry = {"reader": reader, "root": root, "split": split, "options": dict(options)}
        # at the front: the blank line before the next section belongs to the last entry
        datasets.insert(0, name, entry)
    changed = io.StringIO()
    yaml.dump(values, changed)
    return changed.getvalue()
