"""Cost of the scores that `infer` computes beside the logits, and what all scores find.

    python benchmarks/scores.py memory                # fitting on 500 synthetic frames of 512 x 1024, 256 features
    python benchmarks/scores.py time WEIGHTS FRAMES   # a network with and without five feature scores
    python benchmarks/scores.py table PREDICTIONS...  # scores of folders that `infer` wrote, AUPRC and FPR95
    python benchmarks/scores.py meta SEGMENTS...      # meta classification without and with features of scores

``memory`` adds one feature map at a quarter of the size after the other, as the stage `statistics` does, and prints how
much the process grew. ``time`` prints medians of the time of `infer` for a frame, for a folder of prepared frames: with
one thread, CPU time depends little on what else runs.
``table`` has the scores of logits and those that were stored, by protocol `resized_512x1024`, with 95 % intervals over
scenes, in Markdown. ``meta`` takes tables of the stage `segments` with ``segments.features``, pools them, and prints
AUROC, AUPRC (of the false ones) and errors at probability 0.5 of the logistic regression, out of fold by scene; the
interval is that of the gain in AUROC over scenes.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from meta_ood.config import InferParams
from meta_ood.data.context import Machine, progress
from meta_ood.data.frames import read_frames
from meta_ood.data.labels import OOD
from meta_ood.data.prediction_files import open_predictions, read_prediction
from meta_ood.evaluation.counting import resized
from meta_ood.evaluation.uncertainty import pixel_replicates
from meta_ood.inference import predict
from meta_ood.inference.features import FeatureSums, Tap
from meta_ood.inference.statistics import fit
from meta_ood.meta_classification import out_of_fold, quality
from meta_ood.metrics.bootstrap import interval, resample
from meta_ood.metrics.pixel import ScoreHistogram, ThinCounts, pixel_metrics
from meta_ood.models import checkpoint
from meta_ood.scores import LOGITS, SCORES, score_maps
from meta_ood.segments import SegmentTable
from meta_ood.segments.features import scores_of
from meta_ood.segments.table_file import read_table

FIVE = ("mahalanobis", "knn", "vim", "react", "prototype_cosine")


def peak() -> float:
    """Return the largest memory of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Head(torch.nn.Module):
    """The end of a network with 256 features and 19 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 256, 1), torch.nn.Conv2d(256, 19, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.layers(image)
        return logits


def memory(frames: int) -> None:
    """Print what fitting takes."""
    tap, sums = Tap(Head().eval()), FeatureSums(19, frames)
    before, started = peak(), time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    for _ in range(frames):
        features = torch.rand(256, 128, 256, generator=generator)
        sums.add(features, torch.randint(0, 20, (128, 256), generator=generator))
    sums.result(tap, torch.tensor(10.0, dtype=torch.float64))
    seconds = time.perf_counter() - started
    print(f"{frames} frames: {peak() - before:.0f} MB more than before ({peak():.0f} MB in all), {seconds:.0f} s")


def timing(weights: Path, folder: Path, count: int) -> None:
    """Print the time of a frame without and with five scores, in turns."""
    network, made_of = checkpoint.load(weights)
    frames, machine = read_frames(folder, Path.cwd())[:count], Machine("cpu", 1)
    plain, scored = InferParams(size=(512, 1024)), InferParams(size=(512, 1024), scores=FIVE)
    fitted = fit(network, frames[:2], scored, machine, made_of["num_classes"])
    seconds: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    for frame in frames:
        for name, params in (("without", plain), ("with", scored)):
            made = predict(network, [frame] * 2, params, machine, fitted)
            next(made)  # the first of a run also looks for the last layer
            started = time.perf_counter(), time.process_time()
            next(made)
            seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    for clock, own in (("wall clock", 0), ("CPU time", 1)):
        without, with_five = (statistics.median(each[own] for each in pairs) for pairs in seconds.values())
        ratio = with_five / without
        print(f"{clock}: {without:.2f} s a frame without, {with_five:.2f} s with {', '.join(FIVE)}: {ratio:.2f} times")


def cells(folder: Path) -> dict[str, list[str]]:
    """Return, for each score of a folder of predictions, AUPRC and FPR95 [%] with their intervals."""
    histograms: dict[str, ScoreHistogram] = {}
    thin: dict[str, dict[str, ThinCounts]] = {}
    # 1. every frame is read once; as published results have it, at 512 x 1024 and without frames that show no OoD then
    for path in progress(open_predictions(folder).paths, str(folder), None):
        frame = resized(read_prediction(path))
        if not (frame.target == OOD).any():
            continue
        names = [name for name, score in SCORES.items() if score.source == LOGITS or name in frame.stored]
        for name, values in score_maps(frame, names).items():
            histograms.setdefault(name, ScoreHistogram()).add(values, frame.target, len(frame.logits), frame.image_id)
            scenes, found = thin.setdefault(name, {}), ThinCounts.of(values, frame.target)
            scenes[frame.scene] = scenes[frame.scene] + found if frame.scene in scenes else found
    # 2. exact values, and intervals as in `evaluate`: the same draws for every score
    rows = {}
    for name, histogram in histograms.items():
        exact = vars(pixel_metrics(histogram))
        parts = [thin[name][scene] for scene in sorted(thin[name])]
        drawn = pixel_replicates(parts, resample(len(parts), 200, seed=0), exact)
        bounds = {metric: 100 * np.array(interval(drawn[metric])) for metric in ("auprc", "fpr95")}
        rows[name] = [f"{100 * exact[metric]:.1f} ({low:.1f}, {high:.1f})" for metric, (low, high) in bounds.items()]
    return rows


def table(folders: list[Path]) -> None:
    """Print a row for each score and two columns for each folder."""
    columns = [cells(folder) for folder in folders]
    titles = [f"{folder.name}, {metric}" for folder in folders for metric in ("AUPRC", "FPR95")]
    print(f"| score | {' | '.join(titles)} |\n|{' --- |' * (1 + len(titles))}")
    for name in columns[0]:
        print(f"| `{name}` | {' | '.join(cell for column in columns for cell in column[name])} |")


def meta(paths: list[Path]) -> None:
    """Print the quality of meta classification without and with features of scores, and the interval of the gain."""
    tables = {path.stem: read_table(path) for path in paths}
    pooled = SegmentTable.concatenate(list(tables.values()))
    published = [name for name in pooled.feature_names if not scores_of([name])]
    chosen = {"published": published, "with scores": list(pooled.feature_names)}
    found = {name: out_of_fold(pooled.with_features(own), "scene").probability for name, own in chosen.items()}
    false, scene = pooled.is_false, np.array(pooled.scenes)[pooled.image]
    print(f"{len(false)} segments, {false.sum()} false, {len(np.unique(scene))} scenes: {', '.join(tables)}")
    print("| features | number | AUROC | AUPRC | false removed | true lost |\n| --- | --- | --- | --- | --- | --- |")
    for name, p in found.items():
        removed = p > 0.5
        values = [f"{100 * measure(p, false):.1f}" for measure in (quality.auroc, quality.auprc)]
        counts = [f"{(removed & false).sum()}", f"{(removed & ~false).sum()}"]
        print("|", " | ".join([name, str(len(chosen[name])), *values, *counts]), "|")
    rows = [np.flatnonzero(scene == each) for each in np.unique(scene)]
    gains = []
    for weights in resample(len(rows), 200, seed=0):
        drawn = np.concatenate([np.repeat(own, count) for own, count in zip(rows, weights, strict=True)])
        aurocs = [quality.auroc(p[drawn], false[drawn]) for p in found.values()]
        gains.append(aurocs[1] - aurocs[0])
    low, high = 100 * np.array(interval(np.array(gains)))
    print(f"gain in AUROC: 95 % interval over scenes {low:.1f} to {high:.1f} points")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "time", "table", "meta"])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--frames", type=int, help="Frames of `memory` (500) or `time` (10).")
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.frames or 500)
    elif given.what == "table":
        table(given.paths)
    elif given.what == "meta":
        meta(given.paths)
    else:
        timing(*given.paths, given.frames or 10)
