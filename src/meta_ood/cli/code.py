"""``meta-ood code``: write the digests of code that DVC's stages depend on."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(help="Write data/code/STAGE.txt: digests of the code that each stage runs.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/code"),
    show_default=True,
    help="Folder to write.",
)
def code(out: Path) -> None:
    """Write one file per stage; comments and docstrings do not change it."""
    from meta_ood.pipeline.code_digest import stage_digest
    from meta_ood.pipeline.paths import STAGES

    out.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        (out / f"{stage}.txt").write_text(stage_digest(stage), encoding="utf-8", newline="\n")
