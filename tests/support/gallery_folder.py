"""Evaluations with segments, masks and images, made up: for the tests of the page's gallery and slider."""

import json
from pathlib import Path

import numpy as np

from evaluation_folder import write_cell
from meta_ood import config
from meta_ood.data.files import write_csv, write_json
from meta_ood.data.frames import Frame, write_frames
from meta_ood.data.images import write_image
from meta_ood.data.labels import IN, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation.masks import segment_runs, write_masks
from meta_ood.meta_classification.classifier import fit
from meta_ood.metrics import segment
from meta_ood.segments import SegmentTable, measure_segments
from meta_ood.segments.table_file import write_table

NETWORK, DATASET = "deeplabv3plus_mini", "lost_and_found"
SETTINGS = config.SegmentsParams(score="entropy", threshold=0.5)


def make_prediction(name, rng, size, quality):
    """Return a frame with up to two objects and some false segments: square spots where all classes are alike."""
    height, width = size
    target = np.full(size, IN, np.uint8)
    logits = np.zeros((19, *size), np.float32)
    logits[0] = 8
    side = height // 8
    for spot in range(int(rng.integers(2, 7))):
        row, column = rng.integers(0, height - side), rng.integers(0, width - side)
        place = np.s_[row : row + side, column : column + side]
        is_object = spot < rng.integers(0, 3)
        if is_object:
            target[place] = OOD
        if not is_object or rng.random() < quality:
            # objects are surer to be unknown
            logits[0][place] = rng.uniform(0, 1) if is_object else rng.uniform(0.3, 2)
    return Prediction(name, logits, size, True, target, scene=name[:3])


def write_gallery(root, frames=20, size=(32, 64)):
    """Write folders of prepare, segments, meta and evaluate for two variants on one set; return variant -> table."""
    names = [f"s{i % 5:02d}_{i:04d}" for i in range(frames)]
    listed = []
    for number, name in enumerate(names):
        image = (
            np.random.default_rng(number).integers(60, 190, (size[0] // 4, size[1] // 4, 3)).repeat(4, 0).repeat(4, 1)
        )
        write_image(root / "images" / f"{name}.png", image.astype(np.uint8))
        listed.append(
            Frame(name, root / "images" / f"{name}.png", "", root / "prepared" / DATASET / "none.png", name[:3])
        )
    write_frames(root / "prepared" / DATASET, listed, Path("/elsewhere"))
    tables = {}
    for variant, quality in (("baseline", 0.5), ("ood_trained", 0.9)):
        # the same objects in both
        made = [make_prediction(name, np.random.default_rng([7, i]), size, quality) for i, name in enumerate(names)]
        table = SegmentTable.concatenate([measure_segments(one, threshold=SETTINGS.threshold) for one in made])
        write_table(root / "segments" / NETWORK / variant / f"{DATASET}.h5", table, {})
        meta = root / "meta" / NETWORK / variant / DATASET
        classifier = fit(table)
        probability = classifier.probability(table).round(9)
        removed = probability > 0.5
        classifier.write(meta / "classifier.json")
        rows = zip((table.image_ids[i] for i in table.image), probability, removed.astype(int), strict=True)
        write_csv(meta / "probabilities.csv", ("image_id", "probability", "removed"), rows)
        write_json(meta / "metrics.json", {"operating_point": 0.5})
        cell = root / "evaluation" / NETWORK / variant / DATASET
        write_cell(cell, NETWORK, variant, DATASET)
        write_masks(cell / "masks.h5", {one.image_id: segment_runs(one, SETTINGS) for one in made})
        errors = segment.segment_errors(table, removed)
        keys = ("false_positives", "false_negatives", "false_positives_after_meta", "false_negatives_after_meta")
        own = {f"segment_{key}": getattr(errors, key) for key in keys}
        values = json.loads((cell / "metrics.json").read_text())
        (cell / "metrics.json").write_text(json.dumps(values | own))
        tables[variant] = table, probability
    return tables
