"""Replicates of segment metrics, against the metrics of scenes really drawn again."""

import numpy as np
import pytest

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation.counting import SetCounts
from meta_ood.evaluation.uncertainty import replicates
from meta_ood.metrics import bootstrap, component
from meta_ood.metrics.segment import segment_errors
from meta_ood.segments import SegmentTable, measure_segments

SCENES = 4


def prediction(number: int) -> Prediction:
    rng = np.random.default_rng(number)
    target = np.full((24, 32), IN, np.uint8)
    target[rng.random(target.shape) < 0.03] = OOD
    target[:2] = IGNORE
    logits = 4 * rng.standard_normal((3, 24, 32)).astype(np.float32)
    return Prediction(f"{number}", logits, (24, 32), True, target, f"s{number % SCENES}")


def test_segment_metrics_are_those_of_the_scenes_drawn() -> None:
    predictions = [prediction(number) for number in range(6)]
    counts = SetCounts(["entropy"])
    for one in predictions:
        counts.add(one)
    tables = [measure_segments(one) for one in predictions]
    rng = np.random.default_rng(0)
    gone = [rng.random(len(table.image)) < 0.4 for table in tables]
    metrics = {"auroc": 0.5, "auprc": 0.5, "fpr95": 0.5}
    found = replicates(counts, SegmentTable.concatenate(tables), np.concatenate(gone), metrics, count=12, seed=3)
    for index, weights in enumerate(bootstrap.resample(SCENES, 12, 3)):
        drawn = [number for number in range(6) for _ in range(weights[number % SCENES])]
        table = SegmentTable.concatenate([tables[number] for number in drawn])
        removed = np.concatenate([gone[number] for number in drawn])
        errors = segment_errors(table, removed)
        f1 = errors.summary()
        expected = {
            "segment_false_positives": errors.false_positives,
            "segment_false_positives_after_meta": errors.false_positives_after_meta,
            "segment_false_negatives": errors.false_negatives,
            "segment_false_negatives_after_meta": errors.false_negatives_after_meta,
            "alarm_rate": len({*table.image[table.is_false & ~removed].tolist()}) / len(table.image_ids),
            "object_recall": 1 - errors.false_negatives_after_meta / errors.components,
            "segment_f1": f1["before"]["f1"],
            "segment_f1_after_meta": f1["after_meta"]["f1"],
            "component_f1": component.component_metrics(component.of_table(table)).f1,
            "component_f1_after_meta": component.component_metrics(component.of_table(table, ~removed)).f1,
        }
        for name, value in expected.items():
            assert found[name][index] == pytest.approx(value, rel=1e-12), name
