"""Stage `evaluate`: metrics, curves and pictures of one network and variant on one dataset."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from meta_ood.config import Params, SegmentsParams
from meta_ood.data import files
from meta_ood.data.context import Log, Machine
from meta_ood.data.frames import read_frames, read_label_names
from meta_ood.data.prediction_files import open_predictions
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation import summary as results
from meta_ood.evaluation.counting import count_files
from meta_ood.evaluation.masks import Runs, segment_runs, write_masks
from meta_ood.evaluation.pictures import choose_pictures, write_pictures
from meta_ood.evaluation.uncertainty import replicates
from meta_ood.metrics import Flags
from meta_ood.metrics.bootstrap import interval
from meta_ood.scores import PixelMaps
from meta_ood.segments.table_file import read_table, read_weights_sha256


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
    masks: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write metrics.json, its headlines in summary.json, a CSV file per curve, pictures of some frames, masks of all.

    `machine` says who counts the frames: the result does not depend on it.
    """
    settings = params.evaluate
    # 1. inputs that belong together
    frames = {frame.image_id: frame for frame in read_frames(prepared, Path.cwd())}
    folder = open_predictions(predictions, frames)
    table = read_table(segments)
    if [path.stem for path in folder.paths] != list(table.image_ids):
        raise ValueError(f"{segments} is of other frames than {predictions}: run `segments` again")
    if read_weights_sha256(segments) not in (None, folder.weights_sha256):
        raise ValueError(f"{segments} is of other weights than {predictions}: run `segments` again")
    if (table.score, table.threshold) != (params.segments.score, params.segments.threshold):
        made_with = f"{table.score} at {table.threshold:g}"
        raise ValueError(f"{segments} was made with {made_with}, params.yaml says otherwise: run `segments` again")
    probability, removed = results.read_removed(meta, table)
    calibration = results.read_calibration(meta)
    # 2. one look at each frame, which also notes its segments and draws the chosen ones; evaluation.counting says when
    #    it needs a second one
    drawn = {
        table.image_ids[i]: (frames[table.image_ids[i]].image, removed[table.image == i])
        for i in choose_pictures(table, settings.pictures)
    }
    look = partial(_look, drawn, pictures, params.segments, settings.temperature == 1)
    pictures.mkdir(parents=True, exist_ok=True)
    score, threshold = params.segments.score, settings.threshold_of(network, variant)
    counts = count_files(folder.paths, score, settings, threshold=threshold, machine=machine, visit=look)
    # 3. metrics, and their spread over resampled scenes
    found = results.measure(counts, table, removed, settings.protocols, read_label_names(prepared))
    resampled = replicates(counts, table, removed, found, count=settings.bootstrap, seed=params.seed)
    found["differing_decisions"] = results.read_differing_decisions(meta)
    found["intervals"] = {name: interval(column) for name, column in resampled.items()}
    about = {"network": network, "variant": variant, "dataset": dataset}
    joint, froc = results.read_joint(meta)
    about |= joint | {"split": params.dataset_params(dataset).split, "weights": folder.weights_sha256}
    values = results.plain(about | found)
    # 4. files
    tables = results.curve_tables(counts, table, probability, folder.class_names)
    tables |= {"bootstrap": resampled, "meta_calibration": calibration}
    for stem, curve in tables.items():
        results.write_curve(curves / f"{stem}.csv", curve)
    if froc:
        files.write_bytes(curves / "froc.csv", froc)
    write_masks(masks, counts.visited)
    files.write_json(metrics, values)
    files.write_json(summary, results.headlines(values))
    log({f"evaluate/{k}": float(v) for k, v in values.items() if isinstance(v, int | float)}, 0)


def _look(
    drawn: Mapping[str, tuple[Path, Flags]],
    pictures: Path,
    settings: SegmentsParams,
    is_plain: bool,
    prediction: Prediction,
    maps: PixelMaps,
) -> Runs:
    """Return the runs of a frame's segments; draw it if it is one of those.

    Args:
        drawn: Image -> its file, and which of its segments are removed.
        pictures: Folder of the pictures.
        settings: Score and threshold.
        is_plain: The maps are of the logits as they are, as segments are.
        prediction: The frame.
        maps: Its pixel maps.
    """
    given = maps if is_plain else None
    if prediction.image_id in drawn:
        write_pictures(pictures, prediction, *drawn[prediction.image_id], settings, given)
    return segment_runs(prediction, settings, given)
