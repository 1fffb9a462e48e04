"""Stage `evaluate`: predictions, segments and meta classification -> figures, curves, pictures."""

from __future__ import annotations

from pathlib import Path

from meta_ood import evaluation
from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.frames import read_frames, read_label_names
from meta_ood.data.prediction_files import open_predictions
from meta_ood.metrics.pixel import PER_IMAGE
from meta_ood.segments.table_file import read_table


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    prepared: Path,
    predictions: Path,
    segments: Path,
    meta: Path,
    metrics: Path,
    summary: Path,
    curves: Path,
    pictures: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Evaluate one network and variant on one dataset.

    Writes metrics.json, its headlines in summary.json, a CSV file per curve, and pictures of some
    frames. Frames are counted by
    `machine.workers` threads; the result does not depend on their number.
    """
    settings, score = params.evaluate, params.segments.score
    folder = open_predictions(predictions)
    table = read_table(segments)
    if [path.stem for path in folder.paths] != list(table.image_ids):
        raise ValueError(f"{segments} is of other frames than {predictions}: run `segments` again")
    probability, removed = evaluation.read_removed(meta, table)

    scores = tuple(dict.fromkeys((score, *settings.scores)))
    curved = bool({*PER_IMAGE} & {*settings.protocols})
    counts = evaluation.count_files(
        folder.paths, scores, machine.workers, curves=curved, temperature=settings.temperature
    )
    names = read_label_names(prepared)
    figures = evaluation.measure(
        counts, table, removed, score=score, protocols=settings.protocols, label_names=names
    )
    resampled = evaluation.replicates(
        counts, table, removed, figures, count=settings.bootstrap, seed=params.seed
    )
    figures["component"]["of_score"] = evaluation.count_components(
        folder.paths,
        score,
        counts.histograms[score],
        settings.component_track,
        settings.threshold_of(network, variant),
        settings.temperature,
        machine.workers,
    )
    figures["intervals"] = evaluation.intervals(resampled)
    origin = {
        **{"network": network, "variant": variant, "dataset": dataset},
        **{"split": params.dataset_params(dataset).split, "weights": folder.weights_sha256},
    }
    values = evaluation.plain({**origin, **figures})

    curves.mkdir(parents=True, exist_ok=True)
    tables = evaluation.curve_tables(counts, table, probability, score)
    tables |= {"bootstrap": resampled, "meta_calibration": evaluation.read_calibration(meta)}
    for stem, columns in tables.items():
        evaluation.write_columns(curves / f"{stem}.csv", columns)
    images = {frame.image_id: frame.image for frame in read_frames(prepared, Path.cwd())}
    chosen = evaluation.choose_pictures(table, settings.pictures)
    evaluation.write_pictures(pictures, folder, images, table, removed, chosen, params.segments)
    evaluation.write_json(metrics, values)
    evaluation.write_json(summary, evaluation.headlines(values))
    log({f"evaluate/{k}": float(v) for k, v in values.items() if isinstance(v, int | float)}, 0)
