"""Compare objectives, kinds of proxies and λ on the demo world, over seeds, from one baseline.

    python benchmarks/objectives.py --network deeplabv3plus_mini --seeds 3 --csv out.csv

Needs the frames and the baseline of the demo (`dvc repro pretrain`). Each setting continues from
the same baseline with seeds 1, 2, ...; a line is written to the CSV as soon as it is measured, and
what the CSV has is not measured again. ``cross_entropy`` is the control: as many more steps on
known pixels only.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import tempfile
from pathlib import Path

import torch

from meta_ood import config
from meta_ood.context import Machine, log_nothing
from meta_ood.frames import read_frames
from meta_ood.inference import predict
from meta_ood.loading import SegmentationDataset
from meta_ood.metrics.pixel import ScoreHistogram, pixel_metrics
from meta_ood.models import checkpoint
from meta_ood.scores import score_maps
from meta_ood.stages import train
from meta_ood.training import Validation, evaluate_once

PREPARED = Path("data/prepare")
SETS = ("lost_and_found", "fishyscapes_static")
SCORES = ("entropy", "energy")
FIGURES = ("auroc", "fpr95", "auprc")

SETTINGS: tuple[tuple[str, str, float], ...] = (
    ("baseline", "-", 0.0),
    ("cross_entropy", "pasted", 0.0),
    *(("entropy_maximization", "pasted", weight) for weight in (0.25, 0.5, 0.9, 0.97)),
    *(("entropy_maximization", "whole", weight) for weight in (0.5, 0.9)),
    ("outlier_exposure", "pasted", 1.0),
    *(("energy_hinge", "pasted", weight) for weight in (0.01, 0.1)),
    ("unknown_class", "pasted", 0.9),
)
"""Loss, kind of proxies, λ."""


def measure(weights: Path, params: config.Params) -> dict[str, float]:
    """Return the figures of a weights file on both OoD sets and the mIoU."""
    network, made_of = checkpoint.load(weights)
    machine, figures = Machine("cpu", 1), {}
    for name in SETS:
        frames = read_frames(PREPARED / name, Path.cwd())
        histograms = {score: ScoreHistogram() for score in SCORES}
        for prediction in predict(network, frames, params.infer, machine):
            for score, values in score_maps(prediction, SCORES).items():
                histograms[score] += ScoreHistogram.of(values, prediction.target)
        for score, histogram in histograms.items():
            found = pixel_metrics(histogram)
            figures |= {f"{name}.{score}.{f}": float(getattr(found, f)) for f in FIGURES}
    streets = SegmentationDataset(read_frames(PREPARED / params.roles.validation, Path.cwd()))
    known = int(made_of["num_classes"])
    figures["miou"] = evaluate_once(network, Validation(streets), known, machine)["miou"]
    return figures


def trained(
    network: str, baseline: Path, loss: str, style: str, weight: float, seed: int
) -> dict[str, float]:
    """Train one setting with one seed and measure it."""
    overrides = [
        f"seed={seed}",
        f"train.loss={loss}",
        f"train.proxy_style={style}",
        f"train.ood_weight={weight}",
        "train.validate_every=1000",
    ]
    if loss != "entropy_maximization":
        overrides.append("train.loss_options={}")
    params = config.load(Path("params.yaml"), overrides)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "ood_trained.safetensors"
        train.run(
            params,
            network=network,
            training=PREPARED / params.roles.training,
            validation=PREPARED / params.roles.validation,
            proxies=PREPARED / params.roles.proxies,
            baseline=baseline,
            weights=weights,
            metrics=weights.with_suffix(".json"),
            log=log_nothing,
            machine=Machine("cpu", 1),
        )
        return measure(weights, params)


def say(name: str, rows: list[dict[str, float]]) -> None:
    """Print mean and spread over seeds; the better of the two scores by AUPRC on the first set."""
    best = max(SCORES, key=lambda s: statistics.mean(r[f"{SETS[0]}.{s}.auprc"] for r in rows))
    cells = []
    for key in [*(f"{d}.{best}.{f}" for d in SETS for f in FIGURES), "miou"]:
        values = [100 * row[key] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
    print(f"| {name} | {best} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure what is asked for, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="deeplabv3plus_mini")
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=Path("objectives.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    baseline = options.baseline or Path("data/networks", options.network, "baseline.safetensors")
    done: dict[tuple[str, ...], dict[str, float]] = {}
    if options.csv.is_file():
        with options.csv.open(newline="") as file:
            for row in csv.DictReader(file):
                key = tuple(row.pop(k) for k in ("loss", "proxies", "ood_weight", "seed"))
                done[key] = {k: float(v) for k, v in row.items()}
    for seed, (loss, style, weight) in itertools.product(range(1, options.seeds + 1), SETTINGS):
        key = (loss, style, str(weight), str(seed))
        if key in done or (loss == "baseline" and seed > 1):
            continue
        if loss == "baseline":
            figures = measure(baseline, config.load(Path("params.yaml")))
        else:
            figures = trained(options.network, baseline, loss, style, weight, seed)
        new = not options.csv.is_file()
        with options.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["loss", "proxies", "ood_weight", "seed", *figures])
            writer.writerow([*key, *figures.values()])
        done[key] = figures
    print(
        "| loss, proxies, λ | score | " + " | ".join(f"{d} {f}" for d in SETS for f in FIGURES),
        end="",
    )
    print(" | mIoU |\n|" + "---|" * (3 + len(SETS) * len(FIGURES)))
    for loss, style, weight in SETTINGS:
        rows = [v for k, v in done.items() if k[:3] == (loss, style, str(weight))]
        if rows:
            say(f"{loss}, {style}, {weight}", rows)


if __name__ == "__main__":
    main()
