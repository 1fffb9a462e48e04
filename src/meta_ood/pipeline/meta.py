"""Stage `meta`: tables of segments -> meta classifiers, probabilities of being false, and their quality."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from meta_ood.config import OperatingPointParams, Params
from meta_ood.data import files
from meta_ood.data.context import Log, Machine
from meta_ood.meta_classification import MetaClassifier, promise
from meta_ood.meta_classification.cross_validation import (
    CrossValidation,
    at_threshold,
    cross_validate,
    judge_sets,
    pool,
)
from meta_ood.meta_classification.explanation import explain
from meta_ood.segments import SegmentTable, table_file
from meta_ood.segments.features import scores_of

_log = logging.getLogger(__name__)


def run(params: Params, *, network: str, variant: str, segments: Path, meta: Path, log: Log, machine: Machine) -> None:
    """Judge the segments of all evaluation sets, whose tables lie in the folder `segments`.

    Without ``meta.train_on`` each set is cross-validated by itself (published): ``<dataset>/`` in `meta` gets
    ``classifier.json`` (fitted on all its segments; trees and networks with a ``classifier.skops`` beside) and
    ``explanation.json``. With it one classifier is fitted on those sets together, and both files lie in `meta` itself.

    In any case ``<dataset>/`` gets ``probabilities.csv`` (segment, image_id, scene, probability of being a false
    positive, removed, estimated IoU, severity; in the table's order) and ``metrics.json``. With ``operating_point`` a
    budget of false alarms decides: ``promise.json`` says what is promised, ``<dataset>/froc.csv`` is the curve of the
    recall of objects against false alarms.
    """
    del machine
    settings = params.meta
    paths = {name: segments / f"{name}.h5" for name in params.evaluation_sets}
    tables = {name: _chosen_features(path, settings.features) for name, path in paths.items()}
    class_names = table_file.read_class_names(next(iter(paths.values())))
    given: dict[str, Any] = {
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
        found = judge_sets(tables, settings.train_on, **given)
        train_on = {"train_on": list(settings.train_on)}
        found = {name: replace(one, metrics=one.metrics | train_on) for name, one in found.items()}
        if params.operating_point:
            found = _keep_to_budget(params.operating_point, settings.train_on, found, tables, paths, meta)
        else:
            (meta / promise.NAME).unlink(missing_ok=True)
        classifier = next(iter(found.values())).classifier
        write_classifier(meta, classifier, pool(tables, settings.train_on))
        if classifier.fit_failure:
            _log.warning("%s %s: no meta classifier was fitted: %s", network, variant, classifier.fit_failure)
    # 2. the decisions on each set
    for name, one in found.items():
        if reason := one.metrics["fit_failures"]:
            by_score = params.operating_point and one.classifier.fit_failure
            instead = "their score decides" if by_score else "all are kept"
            about = (network, variant, name, one.metrics["kept_without_classifier"], instead, reason)
            _log.warning("%s %s %s: %d segments have no classifier, %s: %s", *about)
        _write_decisions(meta / name, tables[name], one)
        log({f"meta/{name}/{k}": v for k, v in one.metrics.items() if isinstance(v, int | float)}, 0)


def _chosen_features(path: Path, kinds: Sequence[str]) -> SegmentTable:
    """Return a table with the features of these kinds: the published ones, and those of scores if asked for."""
    table = table_file.read_table(path)
    published = [name for name in table.feature_names if not scores_of([name])]
    if "scores" not in kinds:
        return table.with_features(published)
    if len(published) == len(table.feature_names):
        raise ValueError(f"{path}: no features of scores, which meta.features asks for: run `segments` again")
    return table


def _keep_to_budget(
    settings: OperatingPointParams,
    train_on: Sequence[str],
    found: Mapping[str, CrossValidation],
    tables: Mapping[str, SegmentTable],
    paths: Mapping[str, Path],
    meta: Path,
) -> dict[str, CrossValidation]:
    """Choose the threshold on severity, write the promise and the curves, and return the decisions at the threshold."""
    severities = {name: one.severity(tables[name]) for name, one in found.items()}
    # 1. the promise; all sets have the same classifier
    formula = next(iter(found.values())).classifier.severity_formula
    chosen = promise.choose(tables, severities, settings, formula, train_on)
    chosen = chosen.model_copy(update={"tables": {name: files.file_hash(paths[name]) for name in chosen.calibrate_on}})
    files.write_text(meta / promise.NAME, chosen.model_dump_json(indent=1) + "\n")
    if chosen.threshold == 0:
        kept = "every segment is kept: %d of %d frames of %s have a false alarm then, and the budget allows that"
        _log.warning(kept, chosen.alarms, chosen.frames, ", ".join(chosen.calibrate_on))
    # 2. what it does on each set
    results = {}
    for name, one in found.items():
        table, severity = tables[name], severities[name]
        decided = at_threshold(one, table, chosen.threshold)
        about = promise.outcome(chosen, table, severity) | {"is_calibration": name in chosen.calibrate_on}
        results[name] = replace(decided, metrics=decided.metrics | {"promise": about})
        if len(table.component_image):
            curve = promise.froc(chosen, tables, severities, name)
            rows = ([f"{value:.10g}" for value in row] for row in zip(*curve.values(), strict=True))
            files.write_csv(meta / name / "froc.csv", list(curve), rows)
    return results


def _write_decisions(folder: Path, table: SegmentTable, one: CrossValidation) -> None:
    decisions = zip(table.image, one.probability, one.removed, one.estimated_iou, one.severity(table), strict=True)
    rows = [
        (
            segment,
            table.image_ids[image],
            table.scenes[image],
            f"{p:.9f}",
            int(removed),
            f"{iou:.9f}",
            f"{severity:.9g}",
        )
        for segment, (image, p, removed, iou, severity) in enumerate(decisions)
    ]
    columns = ("segment", "image_id", "scene", "probability", "removed", "estimated_iou", "severity")
    files.write_csv(folder / "probabilities.csv", columns, rows)
    files.write_json(folder / "metrics.json", one.metrics)
