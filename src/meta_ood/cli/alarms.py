"""Commands for the alarms of a scan: which ones are alike, and their export for labelling."""

from pathlib import Path

import click

from meta_ood.cli import options
from meta_ood.cli.options import EXISTING_FOLDER

_scan = click.argument("folder", type=EXISTING_FOLDER)


@click.command()
@_scan
@click.argument("alarm")
@click.option("--count", type=click.IntRange(1), default=23, help="Most alarms that are listed.")
@options.as_json
def similar(folder: Path, alarm: str, count: int, as_json: bool) -> None:
    """Find what is most like an ALARM of the scan in FOLDER: seen before?

    ALARM is a frame and the number of its segment, such as drive/000012.jpg:3. Of each other track the nearest alarm
    is listed. Needs `scan --embeddings`. Writes similar.csv and similar.jpg, which begins with ALARM itself.
    """
    from itertools import islice

    from meta_ood.data.files import write_csv
    from meta_ood.data.text_table import text_table
    from meta_ood.detector.scan.similar import read_alarms
    from meta_ood.detector.scan.summary import write_sheet

    alarms = read_alarms(folder)
    number = alarms.find(alarm)
    found = [(alarms.row(other), distance) for other, distance in islice(alarms.nearest(number), count)]
    listed = [{"frame": row["frame"], "segment": row["segment"], "distance": d} for row, d in found]
    write_csv(folder / "similar.csv", ["frame", "segment", "distance"], [list(row.values()) for row in listed])
    tiles = [
        {**alarms.row(number), "note": "this one: "},
        *({**row, "note": f"distance {d:.2f}: "} for row, d in found),
    ]
    sheet = write_sheet(folder, tiles, "similar.jpg")
    rows = [(row["name"], f"{d:.3f}", f"{row['severity']:.2g}", str(row["size"])) for row, d in found]
    table = text_table(["alarm", "distance", "severity", "size"], rows)
    told = {"alarm": alarm, "similar": listed, "sheet": str(sheet)}
    options.answer(as_json, told, f"{table}\nof {len(alarms.table)} alarms: {folder / 'similar.csv'}, {sheet}")


@click.command()
@_scan
@click.option("--least", type=click.IntRange(2), default=5, help="Alarms of the smallest group.")
@options.as_json
def cluster(folder: Path, least: int, as_json: bool) -> None:
    """Find groups of alarms that are alike in the scan in FOLDER.

    How many groups there are follows from the alarms; those that are like too few others are in none. Needs `scan
    --embeddings`. Writes groups.csv (a line for each alarm; group 0: in none) and groups.jpg (of the twelve largest
    groups the most typical alarm and the one least like it).
    """
    from meta_ood.data.files import write_csv
    from meta_ood.data.text_table import text_table
    from meta_ood.detector.scan.similar import describe_groups, read_alarms
    from meta_ood.detector.scan.summary import write_sheet

    alarms = read_alarms(folder)
    groups = alarms.groups(least)
    columns = (alarms.table[name].to_pylist() for name in ("frame", "segment"))
    write_csv(folder / "groups.csv", ["frame", "segment", "group"], zip(*columns, groups.tolist(), strict=True))
    found = list(describe_groups(alarms, groups))
    tiles = [
        {**group[which], "note": f"{group['group']}, {which} of {group['alarms']}: "}
        for group in found[:12]
        for which in ("typical", "farthest")
    ]
    sheet = write_sheet(folder, tiles, "groups.jpg")
    numbers = ("group", "alarms", "tracks", "frames", "sequences")
    rows = [
        (g["typical"]["name"], *(str(g[name]) for name in numbers), f"{g['severity']:.2g}", f"{g['size']:.0f}")
        for g in found
    ]
    table = text_table(["typical alarm", *numbers, "mean severity", "mean size"], rows)
    alone = int((groups == 0).sum())
    told = [{**group, **{which: group[which]["name"] for which in ("typical", "farthest")}} for group in found]
    text = f"{len(found)} groups; {alone} of {len(groups)} alarms are in none: {folder / 'groups.csv'}"
    lines = [table, text, f"of each the most and the least typical: {sheet}"] if found else [text]
    options.answer(as_json, {"groups": told, "alone": alone, "sheet": sheet and str(sheet)}, "\n".join(lines))


@click.command()
@_scan
@click.option("--format", "layout", default="cvat", help="Who is to read it: cvat (COCO's own layout) or fiftyone.")
@options.out_option("outputs/labels", "Folder to write into.")
@options.as_json
def export_alarms(folder: Path, layout: str, out: Path, as_json: bool) -> None:
    """Write the alarms of the scan in FOLDER for labelling, in COCO's format.

    Frames with an alarm as images; alarms as boxes, with their masks if the scan wrote pictures (`scan --pictures
    alarms`). All have the category "alarm": people make it "ood" or "false alarm", and mark as "ood" what was missed.
    What comes back is an evaluation set and trains meta classifiers: docs/drives.md.

    Exit code 3: some frames could not be read any more; the others are there.
    """
    from meta_ood.detector.scan import labelling

    options.check_names("format", labelling.LAYOUTS, layout)
    counts = labelling.export_alarms(folder, out, layout)
    text = f"{counts['alarms']} alarms on {counts['images']} images: {out / labelling.LAYOUTS[layout][1]}"
    if counts["unreadable"]:
        text += f"; {counts['unreadable']} frames could not be read any more"
    options.answer(
        as_json, {name: counts[name] for name in ("images", "alarms", "unreadable")} | {"out": str(out)}, text
    )
    if counts["unreadable"]:
        raise SystemExit(3)
