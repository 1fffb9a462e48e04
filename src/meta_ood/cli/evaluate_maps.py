"""``meta-ood evaluate-maps``: pixel and component metrics of anybody's score maps."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("evaluate-maps")
@click.option(
    "--scores",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of score maps (npy, npz, HDF5, tif or png); higher = more OoD.",
)
@click.option(
    "--targets",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of targets (png, npy or tif), paired with the score maps by name.",
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    default=("exact",),
    show_default=True,
    help="exact, published, fishyscapes, smiyc, per_image_mean, or all; repeatable.",
)
@click.option(
    "--encoding",
    default="binary",
    show_default=True,
    help="Of the targets. binary: 0 in-distribution, 1 OoD, 255 void. meta-ood: docs/formats.md.",
)
@click.option("--score-end", default="", help="End of the score maps' names, to be ignored.")
@click.option("--target-end", default="", help="The same of the targets: _labels_semantic, say.")
@click.option("--track", default=None, help="Component metrics too: anomaly, obstacle or all.")
@click.option(
    "--threshold",
    type=float,
    default=None,
    help="Of the score, for component metrics; without it the best F1 on this set: an oracle.",
)
@click.option(
    "--threshold-from",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="The threshold that an earlier call, with --track and --out FILE, chose on another set.",
)
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="JSON file."
)
def evaluate_maps(
    scores: Path,
    targets: Path,
    protocols: tuple[str, ...],
    encoding: str,
    score_end: str,
    target_end: str,
    track: str | None,
    threshold: float | None,
    threshold_from: Path | None,
    workers: int,
    out: Path | None,
) -> None:
    """Evaluate score maps of any method, with our definitions or somebody else's.

    meta-ood evaluate-maps --scores maps --targets labels --protocol smiyc --track anomaly
    """
    from meta_ood import evaluation

    if threshold_from:
        if threshold is not None:
            raise click.UsageError("--threshold and --threshold-from exclude each other")
        threshold = evaluation.chosen_threshold(threshold_from)
    if threshold is not None and not track:
        raise click.UsageError("a threshold is for component metrics: give --track too")
    pairs = evaluation.pair_files(scores, targets, score_end, target_end)
    result = evaluation.plain(
        evaluation.evaluate_maps(
            pairs,
            tuple(evaluation.PROTOCOLS) if "all" in protocols else protocols,
            encoding=encoding,
            track=track,
            threshold=threshold,
            workers=workers,
        )
    )
    if out:  # first: a terminal that is not UTF-8 may refuse the table
        evaluation.write_json(out, result)
    click.echo(evaluation.maps_text(result))
