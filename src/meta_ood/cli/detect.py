"""``meta-ood detect``: OoD segments in images of your own."""

from __future__ import annotations

from pathlib import Path

import click

from meta_ood.data.context import Machine


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--network",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Weights, such as data/networks/NAME/ood_trained.safetensors.",
)
@click.option(
    "--classifier",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A classifier.json that the stage `meta` wrote for the same network.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("outputs/detect"),
    show_default=True,
    help="Folder to write into.",
)
@click.option("--score", default=None, help="Score that makes segments; the classifier's own.")
@click.option("--threshold", type=float, default=None, help="Its threshold; the classifier's own.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where the network runs.",
)
def detect(
    images: tuple[Path, ...],
    network: Path,
    classifier: Path,
    out: Path,
    score: str | None,
    threshold: float | None,
    device: str,
) -> None:
    """Find OoD segments in IMAGES (files and folders) and judge each: real or false alarm.

    Writes for each image the mask before and after meta classification, an overlay and a JSON list
    of segments with the reasons. Run it again to go on where it stopped.
    """
    from meta_ood.detector.detection import UNLIKE, detect_images, summary

    done = detect_images(
        images,
        network=network,
        classifier=classifier,
        out=out,
        score=score,
        threshold=threshold,
        machine=Machine(device, 1),
    )
    counts = summary(done)
    click.echo(
        f"{counts['images']} images, {counts['segments']} segments, {counts['removed']} of them "
        f"removed as false: {out}"
    )
    if counts["unlike"]:
        click.echo(
            f"{counts['unlike']} segments are unlike those that the classifier was fitted on (a "
            f"feature beyond {UNLIKE:g} standard deviations): do not trust its word on them"
        )
