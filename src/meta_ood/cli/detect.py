"""``meta-ood detect``: OoD segments in images of your own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--detector",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of a detector: data/detectors/NETWORK/VARIANT, or one from the registry.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("outputs/detect"),
    show_default=True,
    help="Folder to write into.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where the network runs.",
)
def detect(images: tuple[Path, ...], detector: Path, out: Path, device: str) -> None:
    """Find OoD segments in IMAGES (files and folders) and decide for each: real or false alarm.

    Writes for each image the masks before and after meta classification, an overlay, the classes
    and a JSON list of segments with the reasons. Run it again to go on where it stopped.

    Exit code 3: some images could not be read; the others are done.
    """
    from meta_ood.detector.detector import UNLIKE, Detector
    from meta_ood.detector.images import detect_images, find_images, summary

    find_images(images)  # a wrong path is told before the network is loaded
    counts = summary(detect_images(images, Detector.load(detector, device), out))
    click.echo(
        f"{counts['images']} images, {counts['segments']} segments, {counts['removed']} of them "
        f"removed as false alarms: {out}"
    )
    if counts["unlike"]:
        click.echo(
            f"{counts['unlike']} segments are unlike those that the meta classifier was fitted on "
            f"(a feature beyond {UNLIKE:g} standard deviations): its decisions on them are unsure"
        )
    if counts["unreadable"]:
        click.echo(f"{counts['unreadable']} images could not be read, see the messages above")
        raise SystemExit(3)
