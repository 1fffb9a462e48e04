from pathlib import Path

import numpy as np
import pytest

from meta_ood.data.labels import IGNORE, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.segments import SegmentTable, measure_segments

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = sorted(path.name for path in REFERENCE.glob("g1_*.npz"))


def test_all_reference_cases_are_here() -> None:
    assert len(CASES) == 17


def _measure(case: np.lib.npyio.NpzFile) -> SegmentTable:
    published = case["gt_train"]
    target = np.zeros_like(published)
    target[published == 255] = IGNORE
    target[published == int(case["ood_index"])] = OOD
    prediction = Prediction.from_softmax("case", case["probs"], target, label_ids=case["gt_label"])
    return measure_segments(prediction, "entropy", float(case["threshold"]))


def _tolerance(name: str, reference: np.ndarray) -> float:
    if name.startswith("cprob"):
        return 1e-9
    if name[0] not in "EDV":
        return 1e-12
    if "_rel" in name:
        return 1e-6 * float(np.abs(reference).max(initial=1))
    return 1e-7 if "_var" in name else 1e-6


@pytest.mark.parametrize("name", CASES)
def test_segments_are_the_published_ones(name: str) -> None:
    with np.load(REFERENCE / name) as case:
        table = _measure(case)
        if case["comp__error"]:
            assert "ZeroDivisionError" in str(case["comp__error"])
            assert table.feature("S_bd").tolist() == [0]
            assert np.isfinite(table.features).all()
            return
        keys = [str(key) for key in case["comp__keys"]]
        assert set(keys) - {"iou", "iou0", "prc"} == set(table.feature_names)
        assert table.feature_names == tuple(sorted(table.feature_names))
        for key in keys:
            reference = case[f"comp_{key}"]
            ours = {"iou": table.iou, "iou0": table.is_false, "prc": np.zeros(len(table.iou))}
            np.testing.assert_allclose(
                ours[key] if key in ours else table.feature(key),
                reference,
                rtol=0,
                atol=_tolerance(key, reference),
                err_msg=key,
            )


@pytest.mark.parametrize("name", CASES)
def test_components_are_the_published_ones(name: str) -> None:
    with np.load(REFERENCE / name) as case:
        table = _measure(case)
        assert table.is_missed.tolist() == case["mask_iou0"].astype(bool).tolist()
        assert table.component_label_id.tolist() == case["mask_label_class"].tolist()
        assert table.component_size.tolist() == case["mask_S"].tolist()
        covered = np.bincount(table.overlaps[:, 1], table.overlaps[:, 2], len(table.component_size))
        np.testing.assert_allclose(covered / table.component_size, case["mask_rec"], rtol=1e-12)
