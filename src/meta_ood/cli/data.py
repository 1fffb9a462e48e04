"""``meta-ood data``: raw datasets, before the pipeline touches them."""

import textwrap
from pathlib import Path
from typing import Any

import click

from meta_ood import config
from meta_ood.cli import options
from meta_ood.cli.options import EXISTING_FOLDER, FOLDER
from meta_ood.data.files import replacing
from meta_ood.data.registry import known_names
from meta_ood.data.text_table import text_table

RAW = Path("data/raw")
DEMO = RAW / "demo"

# 64 files show what is wrong with all of them: a wrong layout, a wrong encoding
_full = click.option("--full", is_flag=True, help="Decode every file; without it a sample of 64.")
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.group()
def data() -> None:
    """Check, link and audit raw datasets; write miniatures."""


@data.command(help="Find what is wrong with raw datasets: NAME of an entry in params, or a folder.")
@click.argument("names", nargs=-1, metavar="[NAME|ROOT]...")
@options.params_file
@_full
@options.workers
@options.as_json
def check(names: tuple[str, ...], params_file: Path, full: bool, workers: int, as_json: bool) -> None:
    """Exit with 1 if an error is found."""
    reports = []
    for name in names or config.load(params_file).datasets:
        reports += _examine(name, params_file, full, workers)
    if as_json:
        options.answer(as_json, [report.to_json() for report in reports], "")
    else:
        for report in reports:
            _show(report)
        if not full and any(r.facts.get("frames", 0) > r.facts.get("decoded", 0) for r in reports):
            click.echo("A sample of the files was decoded; --full decodes all.")
    if not all(report.passed for report in reports):
        raise SystemExit(1)


def _examine(name: str, params_file: Path, full: bool, workers: int) -> list[Any]:
    from meta_ood.datasets.checks.examine import examine, recognise

    # an entry of the params file, unless it is a folder
    root = Path(name)
    if not root.is_dir():
        own = config.load(params_file).dataset_params(name)
        return [examine(name, own.reader, Path(own.root), own.split, own.options, full, workers)]
    if guesses := recognise(root):
        return [examine(f"{reader} {split}", reader, root, split, o, full, workers) for reader, split, o in guesses]
    below = [str(child) for child in sorted(root.iterdir()) if recognise(child)]
    hint = f"try {', '.join(below)}" if below else "see docs/datasets.md"
    raise ValueError(f"{root} looks like no dataset that is known; {hint}")


def _show(report: Any) -> None:
    # a report of meta_ood.datasets.checks, which takes a second to import
    verdict = click.style("passed", "green") if report.passed else click.style("FAILED", "red")
    click.echo(f"{click.style(report.name, bold=True)}  {report.root}  [{report.split}]  {verdict}")
    facts = {key: value for key, value in report.facts.items() if value and key != "values"}
    for key, value in facts.items():
        if isinstance(value, dict):
            facts[key] = ", ".join(f"{name} ({count})" for name, count in value.items())
    if facts:
        click.echo("  " + "; ".join(f"{key} {value}" for key, value in facts.items()))
    for finding in report.findings:
        level = click.style(f"{finding.level:<7}", _COLOURS[finding.level])
        click.echo(f"  {level} {textwrap.fill(finding.text, 92, subsequent_indent=' ' * 10)}")
        more = [f"and {finding.count - 2} more"] if finding.count > 2 else []
        advice = [f"-> {finding.advice}"] if finding.advice else []
        for line in [*finding.files[:2], *more, *advice]:
            click.echo(f"          {line}")


@data.command(help="Make a dataset available below data/raw by a link, enter it in params, check it.")
@click.argument("name")
@click.argument("root", type=EXISTING_FOLDER)
@click.option("--images", type=EXISTING_FOLDER, help="Root of the images, for Fishyscapes' labels.")
@options.params_file
@_full
@options.workers
@click.pass_context
def link(
    ctx: click.Context, name: str, root: Path, images: Path | None, params_file: Path, full: bool, workers: int
) -> None:
    """NAME is a reader (cityscapes, coco, ...) or an entry in params; nothing is copied."""
    from meta_ood.datasets import READERS, linking
    from meta_ood.datasets.checks.examine import recognise

    # 1. the reader, by its own name or by that of an entry
    params = config.load(params_file)
    entries = {k: d for k, d in params.datasets.items() if name in (k, d.reader)}
    reader = next(iter(entries.values())).reader if entries else name
    if not entries and reader not in READERS:
        raise ValueError(f"unknown dataset {name!r}; {known_names(name, {*READERS, *params.datasets})}")
    if reader in linking.NEEDS_IMAGES and images is None and not (root / "leftImg8bit").exists():
        raise ValueError(f"{reader} has labels only: give the root of {linking.NEEDS_IMAGES[reader]} as --images")
    # 2. the link: where the entries say, unless that is the demo world or several places
    roots = {Path(d.root) for d in entries.values()}
    free = [r for r in roots if RAW in r.parents and r != DEMO and DEMO not in r.parents]
    place = free[0].relative_to(RAW).as_posix() if len(roots) == len(free) == 1 else reader
    target = linking.link(place, root, RAW, images)
    linking.show_to_git(target, RAW)
    click.echo(f"{target} -> {root}\nFor `dvc exp run --temp` and `--queue`: git add {RAW / '.gitignore'} {target}")
    # 3. the entries: those that are there, or one per split that is found
    found = [(split, own) for r, split, own in recognise(target) if r == reader]
    wanted = {key: (entry.split, entry.options) for key, entry in entries.items()}
    wanted = wanted or {(reader if len(found) == 1 else f"{reader}_{split}"): (split, own) for split, own in found}
    text = changed = params_file.read_text(encoding="utf-8")
    for key, (split, own) in wanted.items():
        if key not in entries or Path(entries[key].root) != target:
            changed = linking.enter(changed, key, reader, target.as_posix(), split, own)
            click.echo(f"{params_file}: datasets.{key}.root is {target}")
    if changed != text:
        with replacing(params_file) as temporary:
            temporary.write_text(changed, encoding="utf-8")
            config.load(temporary)  # an error keeps the old file
    # 4. the check
    ctx.invoke(check, names=tuple(wanted) or (str(target),), params_file=params_file, full=full, workers=workers)


@data.command("train-ids", help="Write Cityscapes' labelTrainIds beside the labelIds of ROOT.")
@click.argument("root", type=EXISTING_FOLDER)
@click.option("--annotation", type=click.Choice(["fine", "coarse"]), default="fine")
def train_ids(root: Path, annotation: str) -> None:
    """Do what the official script does, for tools that need the files; ours do not."""
    from meta_ood.data.context import progress
    from meta_ood.datasets.cityscapes import write_train_ids

    count = sum(1 for _ in progress(write_train_ids(root, annotation), "train ids"))
    click.echo(f"{count} files written; those that were there are kept")


@data.command(help="Write a miniature of a dataset: its layout, names and counts, small pictures.")
@click.argument("kind")
@click.argument("root", type=FOLDER)
@click.option("--split", help="Default: every split of the layout.")
@click.option("--count", type=click.IntRange(1), help="Frames a split; default as published.")
@click.option("--height", type=click.IntRange(16), default=64, help="[px]")
@click.option("--width", type=click.IntRange(32), default=128, help="[px]")
@click.option("--seed", type=int, default=0)
def synthesize(kind: str, root: Path, split: str | None, count: int | None, height: int, width: int, seed: int) -> None:
    """KIND is a reader's name; an unknown one lists the known ones."""
    from meta_ood.demo.miniature import splits_of, write_miniature

    for name in [split] if split else splits_of(kind):
        written = write_miniature(root, kind, name, count, seed=seed, height=height, width=width)
        click.echo(f"{root}: {written} frames of {name}")


@data.command(help="Draw drives through the demo world: sequences of frames in LostAndFound's layout, with times.")
@click.argument("root", type=FOLDER)
@click.option("--count", type=click.IntRange(1), default=10, help="Drives.")
@click.option("--frames", type=click.IntRange(1), default=60, help="Frames a drive; ten are one second.")
@click.option("--height", type=click.IntRange(32), default=128, help="[px]")
@click.option("--width", type=click.IntRange(32), default=256, help="[px]")
@click.option("--seed", type=click.IntRange(0), default=0)
def drives(root: Path, count: int, frames: int, height: int, width: int, seed: int) -> None:
    """Print what `meta-ood scan` takes."""
    from meta_ood.data.context import progress
    from meta_ood.demo.drives import LIST, write_drives

    written = write_drives(root, count, frames, seed=seed, height=height, width=width)
    total = sum(progress(written, "draw", count * frames))
    click.echo(f"{total} frames with their times: {root / LIST}")


@data.command("audit-proxies", help="Which COCO categories become proxies, and what that means.")
@click.argument("name", required=False)
@options.params_file
@click.option("--sample", type=click.IntRange(0), default=500, help="Proxies whose pixels are counted; 0: all.")
@options.out_option(None, "Folder for audit.json, categories.csv and categories.png.")
@options.track
def audit_proxies(name: str | None, params_file: Path, sample: int, out: Path | None, track: bool) -> None:
    """NAME is an entry in params; default: the first of roles.proxies."""
    from meta_ood import tracking
    from meta_ood.datasets import audit

    # 1. the audit
    params = config.load(params_file)
    name = name or params.roles.proxies[0].dataset
    own = params.dataset_params(name)
    if own.reader != "coco":
        raise ValueError(f"datasets.{name}: the reader is {own.reader}; an audit needs coco")
    found = audit.audit(Path(own.root), own.split, own.options, sample)
    header, *rows = audit.table(found)[:31]
    click.echo(text_table(header, rows))
    click.echo(
        f"\n{found.kept} of {found.images} images are proxies, {found.empty} of them empty;\n"
        f"{found.unannotated:.1%} of their pixels have no annotation (measured on {found.measured})."
    )
    if found.leaks:
        leaks = ", ".join(category.name for category in found.leaks)
        click.echo(
            f"Kept although an evaluation set holds it: {leaks}. The reader's options exclude and include decide."
        )
    # 2. its files, and its run
    folder = out or Path("outputs/audit") / name
    audit.write(found, folder)
    click.echo(f"Written: {folder}")
    about: dict[str, Any] = {"keys": {"dataset": name}, "inputs": {"root": Path(own.root)}}
    values = {f"datasets.{name}.{key}": value for key, value in own}
    with tracking.run("audit", params=values, experiment=params.tracking.experiment, enabled=track, **about) as run:
        run.log(found.numbers(), 0)
        run.outputs({"audit": folder})
