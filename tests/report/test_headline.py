"""The sentences and tiles at the top of the page."""

import numpy as np
import pytest

from evaluation_folder import VARIANTS
from meta_ood.report.headline import Tile, summarise
from meta_ood.report.results import Evaluation, Results

FALSE, MISSED = "segment_false_positives", "segment_false_negatives"


def headline(datasets, curves=None):
    """Summarise one network from ``dataset -> (metrics of the baseline, of the other)``."""
    found = [
        Evaluation("mini", variant, dataset, metrics, (curves or {}).get((dataset, variant), {}))
        for dataset, both in datasets.items()
        for variant, metrics in zip(VARIANTS, both, strict=True)
    ]
    return summarise(Results(("mini",), VARIANTS, tuple(datasets), {o.key: o for o in found}))


@pytest.mark.parametrize(
    ("after", "title"),
    [
        ({"auprc": 0.6, "fpr95": 0.1}, "OoD training improved the detection of pixels: AUPRC 40.0"),
        ({"auprc": 0.3, "fpr95": 0.4}, "OoD training made the detection of pixels worse: AUPRC"),
        ({"auprc": 0.6, "fpr95": 0.4}, "OoD training improved one metric of pixels and made"),
        ({"auprc": 0.4, "fpr95": 0.3}, "OoD training hardly changed"),
        ({"auprc": 0.6, "fpr95": 0.3}, "OoD training improved"),
        ({}, "There is no pair"),
    ],
)
def test_title(after, title):
    assert headline({"fs": ({"auprc": 0.4, "fpr95": 0.3}, after)}).title.startswith(title)


def counts(false, false_after, missed, missed_after, **more):
    return {
        FALSE: false,
        f"{FALSE}_after_meta": false_after,
        MISSED: missed,
        f"{MISSED}_after_meta": missed_after,
        **more,
    }


def test_segments_are_compared_alike_with_alike():
    """Both sides with meta classification; the issue's figures of the demo."""
    before = counts(428, 134, 151, 164, components=220, frames=140)
    after = counts(741, 165, 52, 78, components=220, frames=140, true_segments_removed=48)
    found = headline({"fs": (before, after)})
    assert found.tiles == [
        Tile("missed objects", "74.5", "35.5 %", "164 → 78 in 220 objects", "better"),
        Tile("false segments per frame", "0.96", "1.18", "134 → 165 in 140 frames", "worse"),
    ]
    text = " ".join(found.sentences)
    assert "removed 576 of 741 false segments (78 %) and 48 true ones" in text
    assert "missed objects went from 52 to 78" in text
    assert "both with meta classification: false segments 134 → 165; missed objects 164 → 78" in text
    assert "428" not in text
    assert found.worse == ["mini on fs: false segments 134 → 165"]


@pytest.mark.parametrize(
    ("key", "before", "after", "text"),
    [
        ("auroc", 0.9, 0.8, "AUROC 90.0 → 80.0 %"),
        ("auprc", 0.9, 0.8, "AUPRC 90.0 → 80.0 %"),
        ("fpr95", 0.1, 0.2, "FPR95 10.0 → 20.0 %"),
        (f"{MISSED}_after_meta", 3, 5, "missed objects 3 → 5"),
        ("component_f1_after_meta", 0.4, 0.1, "component F1 after meta classification 40.0 → 10.0 %"),
        ("miou", 0.7, 0.6, "mIoU 70.0 → 60.0 %"),
    ],
)
def test_every_metric_that_got_worse_is_named(key, before, after, text):
    assert headline({"fs": ({key: before}, {key: after})}).worse == [f"mini on fs: {text}"]
    assert headline({"fs": ({key: after}, {key: before})}).worse == []


def test_ordinary_frames_stay_apart_and_what_got_worse_is_listed():
    ordinary = {"components": 0, "frames": 48}
    before = counts(232, 232, 0, 0, calibration_error=0.0068, miou=0.8, **ordinary)
    after = counts(402, 402, 0, 0, calibration_error=0.0144, miou=0.8, **ordinary)
    same = counts(9, 4, 1, 1, components=5, frames=10, true_segments_removed=1)
    found = headline({"val": (before, after), "fs": (same, same)})
    assert found.worse == ["mini on val: false segments 232 → 402; calibration error 0.7 → 1.4 %"]
    tiles = {tile.name: tile for tile in found.tiles}
    assert tiles["false segments per ordinary frame"].after == "8.38"
    assert tiles["false segments per frame"].note == "4 → 4 in 10 frames"
    text = " ".join(found.sentences)
    assert "On frames without OoD objects (val): false segments 232 → 402." in text
    assert "removed 5 of 9 false segments" in text
    assert "mIoU stayed in 1 of 1 comparisons." in text


def test_what_could_be_chance_is_said_and_comes_last():
    rng = np.random.default_rng(0)
    unsure = {f"{FALSE}_after_meta": rng.integers(0, 9, 200).astype(float)}
    sure = {f"{FALSE}_after_meta": unsure[f"{FALSE}_after_meta"] + 5}
    other = {f"{FALSE}_after_meta": rng.integers(0, 9, 200).astype(float)}
    curves = {
        ("a", "baseline"): {"bootstrap": unsure},
        ("a", "ood_trained"): {"bootstrap": other},
        ("b", "baseline"): {"bootstrap": unsure},
        ("b", "ood_trained"): {"bootstrap": sure},
    }
    pair = counts(9, 4, 1, 1, components=5), counts(9, 6, 1, 1, components=5)
    assert headline({"a": pair, "b": pair}, curves).worse == [
        "mini on b: false segments 4 → 6",
        "mini on a: false segments 4 → 6, could be chance",
    ]


def test_directions_are_counted():
    values = {str(i): (0.5, after) for i, after in enumerate((0.6, 0.4, 0.5))}

    def sentences(*names):
        return headline(
            {n: ({"auroc": values[n][0], "fpr95": 0.5}, {"auroc": values[n][1], "fpr95": 0.4}) for n in names}
        ).sentences

    assert sentences("0", "1", "2") == [
        "AUROC rose in 1, fell in 1, stayed in 1 of 3 comparisons.",
        "FPR95 fell in 3 of 3 comparisons.",
    ]
    assert sentences("0", "1")[0] == "AUROC rose in 1, fell in 1 of 2 comparisons."


def test_tiles_do_not_average_unlike_sets():
    one = counts(9, 4, 1, 1, components=5, frames=10, auroc=0.5, miou=0.5)
    other = counts(9, 8, 1, 2, components=50, frames=10, auroc=0.9)
    tiles = {tile.name: tile for tile in headline({"a": (one, one), "b": (other, other)}).tiles}
    assert (tiles["AUROC, a"].after, tiles["AUROC, b"].after) == ("50.0 %", "90.0 %")
    assert tiles["mIoU"].after == "50.0 %"  # of the only set that has it
    assert tiles["missed objects, a"].note == "1 → 1 in 5 objects"
    assert tiles["false segments per frame, b"].after == "0.80"
