"""Compare objectives, proxies, their background and λ on the demo world, from one baseline.

    python benchmarks/objectives.py --network deeplabv3plus_mini --seeds 1 2 3 --csv out.csv

Needs the demo's raw data, frames and baseline (`dvc repro pretrain`). Each setting continues from the same baseline
with every seed; a line is written to the CSV as soon as it is measured, and what the CSV has is not measured again, so
that processes with seeds of their own can share one. ``cross_entropy`` is the control: as many more steps on known
pixels only. Each objective is judged by the score that it trains.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from meta_ood import config
from meta_ood.data.context import Machine, no_log
from meta_ood.data.frames import read_frames
from meta_ood.inference import predict
from meta_ood.metrics.pixel import ScoreHistogram, pixel_metrics
from meta_ood.models import checkpoint
from meta_ood.pipeline import prepare, train
from meta_ood.scores import score_maps
from meta_ood.training.loader import SegmentationDataset
from meta_ood.training.validation import Validation, evaluate_once

PREPARED = Path("data/prepare")
SETS = ("lost_and_found", "fishyscapes_static")
FIGURES = ("auroc", "fpr95", "auprc")

SCORES: Mapping[str, tuple[str, ...]] = {
    "baseline": ("entropy", "energy"),
    "cross_entropy": ("entropy", "energy"),
    "entropy_maximization": ("entropy",),
    "outlier_exposure": ("entropy",),
    "energy_hinge": ("energy",),
    "unknown_class": ("energy",),
}
"""Loss -> the scores that it is judged by. Energy orders pixels as the probability of the unknown
class does (decision 0054).
"""

OPTIONS: Mapping[str, str] = {
    "entropy_maximization": "{normalisation: pixels}",
    "energy_hinge": "{margin_in: -6.0, margin_ood: -2.0}",
}
"""Loss -> its options. The margins: the mean energy of the baseline at known pixels of its training
set is -5.7; the published -12 and -6 belong to networks with larger logits.
"""


class Setting(NamedTuple):
    """What is compared: a loss, its proxies and λ."""

    loss: str
    proxies: str = "pasted"
    background: str = "ignore"
    ood_weight: float = 0.0
    proxy_ratio: float = 1.0


SETTINGS = (
    Setting("baseline"),
    Setting("cross_entropy"),
    *(Setting("entropy_maximization", ood_weight=w) for w in (0.25, 0.5, 0.9, 0.97)),
    *(
        Setting("entropy_maximization", "whole", background, w)
        for background in ("ignore", "road", "ood")
        for w in (0.5, 0.9)
    ),
    *(Setting("outlier_exposure", ood_weight=w) for w in (0.25, 1.0)),
    *(Setting("energy_hinge", ood_weight=w) for w in (0.1, 0.5)),
    *(Setting("unknown_class", ood_weight=w) for w in (0.5, 0.9)),
    Setting("outlier_exposure", "whole", ood_weight=0.5),
    Setting("entropy_maximization", "whole", "road", 0.9, 0.1),
)
"""The last one has the published number of proxies, and fewer steps for it."""


def measure(weights: Path, params: config.Params) -> dict[str, float]:
    """Return the figures of a weights file on both OoD sets and the mIoU."""
    network, made_of = checkpoint.load(weights)
    machine, figures = Machine("cpu", 1), {}
    scores = sorted({score for own in SCORES.values() for score in own})
    for name in SETS:
        frames = read_frames(PREPARED / name, Path.cwd())
        histograms = {score: ScoreHistogram() for score in scores}
        for prediction in predict(network, frames, params.infer, machine):
            for score, values in score_maps(prediction, scores).items():
                histograms[score] += ScoreHistogram.of(values, prediction.target)
        for score, histogram in histograms.items():
            found = pixel_metrics(histogram)
            figures |= {f"{name}.{score}.{f}": float(getattr(found, f)) for f in FIGURES}
    frames = [frame for own in params.roles.validation for frame in read_frames(PREPARED / own.dataset, Path.cwd())]
    streets = SegmentationDataset(frames)
    known = int(made_of["num_classes"])
    figures["miou"] = evaluate_once(network, Validation(streets), known, machine)["miou"]
    return figures


def trained(network: str, baseline: Path, setting: Setting, seed: int) -> dict[str, float]:
    """Prepare the proxies, train one setting with one seed and measure it."""
    overrides = [
        f"seed={seed}",
        f"train.loss={setting.loss}",
        f"train.loss_options={OPTIONS.get(setting.loss, '{}')}",
        f"train.proxy_style={setting.proxies}",
        f"train.ood_weight={setting.ood_weight}",
        f"train.proxy_ratio={setting.proxy_ratio}",
        f"datasets.coco.options.background={setting.background}",
        "train.validate_every=1000",
    ]
    params = config.load(Path("params.yaml"), overrides)
    name, machine = params.roles.proxies[0].dataset, Machine("cpu", 1)
    with tempfile.TemporaryDirectory() as folder:
        proxies, weights = Path(folder, name), Path(folder, "ood_trained.safetensors")
        prepare.run(
            params,
            dataset=name,
            root=Path(params.dataset_params(name).root),
            prepared=proxies,
            log=no_log,
            machine=machine,
        )
        train.run(
            params,
            network=network,
            training=[PREPARED / own.dataset for own in params.roles.training],
            validation=[PREPARED / own.dataset for own in params.roles.validation],
            proxies=[proxies],
            baseline=baseline,
            weights=weights,
            metrics=weights.with_suffix(".json"),
            log=no_log,
            machine=machine,
        )
        return measure(weights, params)


def say(setting: Setting, score: str, rows: list[dict[str, float]]) -> None:
    """Print mean and standard deviation over seeds, in percent."""
    cells = []
    for key in [*(f"{d}.{score}.{f}" for d in SETS for f in FIGURES), "miou"]:
        values = [100 * row[key] for row in rows]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}")
    what = [str(value) for value in setting]
    if setting.loss == "baseline":
        what[1:] = "-" * 4
    elif setting.proxies == "pasted":
        what[2] = "-"
    print("|", " | ".join([*what, str(len(rows)), score, *cells]), "|", flush=True)


def read_done(path: Path) -> dict[tuple[str, ...], dict[str, float]]:
    """Return what the CSV has: setting and seed -> figures."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [tuple(row.pop(name) for name in (*Setting._fields, "seed")) for row in rows]
    return {key: {name: float(value) for name, value in row.items()} for key, row in zip(keys, rows, strict=True)}


def main() -> None:
    """Measure what is asked for, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="deeplabv3plus_mini")
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--csv", type=Path, default=Path("objectives.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    baseline = options.baseline or Path("data/networks", options.network, "baseline.safetensors")
    for seed, setting in itertools.product(options.seeds, SETTINGS):
        key = (*map(str, setting), "1" if setting.loss == "baseline" else str(seed))
        if key in read_done(options.csv):
            continue
        if setting.loss == "baseline":
            figures = measure(baseline, config.load(Path("params.yaml")))
        else:
            figures = trained(options.network, baseline, setting, seed)
        new = not options.csv.is_file()
        with options.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow([*Setting._fields, "seed", *figures])
            writer.writerow([*key, *figures.values()])
    figure_names = [f"{d} {f}" for d in SETS for f in FIGURES]
    header = ["loss", "proxies", "background", "λ", "ratio", "seeds", "score", *figure_names]
    print("|", " | ".join(header), "| mIoU |\n|" + "---|" * (len(header) + 1))
    done = read_done(options.csv)
    for setting in SETTINGS:
        same = tuple(map(str, setting))
        if rows := [figures for key, figures in done.items() if key[:-1] == same]:
            for score in SCORES[setting.loss]:
                say(setting, score, rows)


if __name__ == "__main__":
    main()
