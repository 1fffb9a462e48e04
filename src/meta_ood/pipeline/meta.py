"""Stage `meta`: tables of segments -> meta classifiers, probabilities of being false, and their quality."""

import logging
from dataclasses import replace
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data import files
from meta_ood.data.context import Log, Machine
from meta_ood.meta_classification import MetaClassifier
from meta_ood.meta_classification.cross_validation import CrossValidation, cross_validate, judge_sets, pool
from meta_ood.meta_classification.explanation import explain
from meta_ood.segments import SegmentTable, table_file

_log = logging.getLogger(__name__)


def run(params: Params, *, network: str, variant: str, segments: Path, meta: Path, log: Log, machine: Machine) -> None:
    """Judge the segments of all evaluation sets, whose tables lie in the folder `segments`.

    Without ``meta.train_on`` each set is cross-validated by itself (published): ``<dataset>/`` in `meta` gets
    ``classifier.json`` (fitted on all its segments; trees and networks with a ``classifier.skops`` beside) and
    ``explanation.json``. With it one classifier is fitted on those sets together, and both files lie in `meta` itself.

    In any case ``<dataset>/`` gets ``probabilities.csv`` (segment, image_id, scene, probability of being a false
    positive, removed, estimated IoU; in the table's order) and ``metrics.json``.
    """
    del machine
    settings = params.meta
    paths = {name: segments / f"{name}.h5" for name in params.evaluation_sets}
    tables = {name: table_file.read_table(path) for name, path in paths.items()}
    class_names = table_file.read_class_names(next(iter(paths.values())))
    given = {
        "classifier": settings.classifier,
        "options": settings.classifier_options,
        "folds": settings.folds,
        "operating_point": settings.operating_point,
        "max_lost": settings.max_lost,
    }

    def write_classifier(folder: Path, fitted: MetaClassifier, table: SegmentTable) -> None:
        # the reasons are those of the logistic regression, whatever the classifier
        explained = explain(table, settings.folds, settings.bootstrap, params.seed, class_names)
        replace(fitted, network=network, variant=variant, class_names=class_names).write(folder / "classifier.json")
        files.write_json(folder / "explanation.json", explained)

    # 1. decisions, metrics, and the classifiers for new data
    if settings.train_on is None:
        found = {name: cross_validate(table, **given) for name, table in tables.items()}
        for name, one in found.items():
            write_classifier(meta / name, one.classifier, tables[name])
    else:
        whole, found = judge_sets(tables, settings.train_on, **given)
        write_classifier(meta, whole.classifier, pool(tables, settings.train_on))
    # 2. the decisions on each set
    for name, one in found.items():
        if reason := one.metrics["fit_failures"]:
            kept = one.metrics["kept_without_classifier"]
            about = (network, variant, name, kept, reason)
            _log.warning("%s %s %s: %d segments are kept without a classifier: %s", *about)
        _write_decisions(meta / name, tables[name], one)
        log({f"meta/{name}/{k}": v for k, v in one.metrics.items() if isinstance(v, int | float)}, 0)


def _write_decisions(folder: Path, table: SegmentTable, one: CrossValidation) -> None:
    decisions = zip(table.image, one.probability, one.removed, one.estimated_iou, strict=True)
    rows = [
        (segment, table.image_ids[image], table.scenes[image], f"{probability:.9f}", int(removed), f"{iou:.9f}")
        for segment, (image, probability, removed, iou) in enumerate(decisions)
    ]
    columns = ("segment", "image_id", "scene", "probability", "removed", "estimated_iou")
    files.write_csv(folder / "probabilities.csv", columns, rows)
    files.write_json(folder / "metrics.json", one.metrics)
