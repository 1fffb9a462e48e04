"""Stage `meta`: table of segments -> meta classifier, out-of-fold probabilities, their quality."""

import logging
from dataclasses import replace
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data import files
from meta_ood.data.context import Log, Machine
from meta_ood.meta_classification.cross_validation import cross_validate
from meta_ood.meta_classification.explanation import explain
from meta_ood.segments import table_file

_log = logging.getLogger(__name__)


def run(
    params: Params, *, network: str, variant: str, dataset: str, segments: Path, meta: Path, log: Log, machine: Machine
) -> None:
    """Cross-validate a meta classifier on the table `segments` and fit it on all of it.

    Writes into `meta`: ``classifier.json`` (fitted on all segments; trees and networks with a ``classifier.skops``
    beside), ``probabilities.csv`` (segment, image_id, scene, out-of-fold probability of being a false positive,
    removed, estimated IoU; in the table's order), ``metrics.json`` and ``explanation.json``.
    """
    del machine
    table = table_file.read_table(segments)
    class_names = table_file.read_class_names(segments)
    # 1. out-of-fold decisions, metrics, and the classifier for new data
    found = cross_validate(
        table,
        classifier=params.meta.classifier,
        options=params.meta.classifier_options,
        folds=params.meta.folds,
        operating_point=params.meta.operating_point,
        max_lost=params.meta.max_lost,
    )
    if reason := found.metrics["fit_failures"]:
        _log.warning(
            "%s %s %s: %d segments are kept without a classifier: %s",
            *(network, variant, dataset, found.metrics["kept_without_classifier"], reason),
        )
    classifier = replace(found.classifier, network=network, variant=variant, class_names=class_names)
    # 2. what decides, by the logistic regression
    explained = explain(table, params.meta.folds, params.meta.bootstrap, params.seed, class_names)
    # 3. the files
    decisions = zip(table.image, found.probability, found.removed, found.estimated_iou, strict=True)
    rows = [
        (segment, table.image_ids[image], table.scenes[image], f"{probability:.9f}", int(removed), f"{iou:.9f}")
        for segment, (image, probability, removed, iou) in enumerate(decisions)
    ]
    classifier.write(meta / "classifier.json")
    columns = ("segment", "image_id", "scene", "probability", "removed", "estimated_iou")
    files.write_csv(meta / "probabilities.csv", columns, rows)
    files.write_json(meta / "explanation.json", explained)
    files.write_json(meta / "metrics.json", found.metrics)
    log({f"meta/{k}": v for k, v in found.metrics.items() if isinstance(v, int | float)}, 0)
