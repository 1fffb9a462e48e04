"""What `evaluate` writes, made up: for the tests of the report."""

import json

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from meta_ood.data import overlays
from meta_ood.data.images import write_image
from meta_ood.data.labels import IGNORE, IN, OOD

NETWORKS = ("deeplabv3plus_mini", "dualgcn_mini")
VARIANTS = ("baseline", "ood_trained")
DATASETS = ("lost_and_found", "fishyscapes_static", "cityscapes_val")


def write_csv(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(f"{v:.6g}" for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_cell(folder, network, variant, dataset, *, pixels=4000, pictures=1, size=(32, 64)):
    """Write one cell; OoD-trained networks separate better."""
    rng = np.random.default_rng([NETWORKS.index(network), VARIANTS.index(variant), DATASETS.index(dataset)])
    after = variant == "ood_trained"
    folder.mkdir(parents=True)
    metrics = {
        "frames": 40,
        "scenes": 5,
        "pixels": 40 * pixels,
        "positives": 20,
        "ignored": 7,
        "neutral": 0,
        "components": 30,
        "split": "test",
        "miou": None,
        "auroc": None,
        "auprc": None,
        "fpr95": None,
    }
    if dataset == "cityscapes_val":
        metrics["class_iou"] = [None, *np.linspace(0.9, 0.5, 18).tolist()]
        metrics["calibration_error"] = 0.02 + 0.01 * after
        confidence = np.linspace(0.1, 1, 10)
        write_csv(
            folder / "curves/reliability.csv",
            confidence=confidence,
            accuracy=confidence ** (1.2 + 0.3 * after),
            pixels=np.full(10, 100),
        )
        metrics["miou"] = 0.845 - 0.004 * after + 0.01 * rng.random()
    else:
        low = rng.beta(1.2, 14 - 4 * after, pixels)
        high = rng.beta(6 if after else 3, 2 if after else 5, pixels // 50)
        truth = np.repeat([0, 1], [len(low), len(high)])
        score = np.concatenate([low, high])
        fpr, tpr, _ = roc_curve(truth, score)
        precision, recall, _ = precision_recall_curve(truth, score)
        keep = np.unique(np.linspace(0, len(fpr) - 1, 200).astype(int))
        write_csv(folder / "curves/roc.csv", false_positive_rate=fpr[keep], true_positive_rate=tpr[keep])
        keep = np.unique(np.linspace(0, len(recall) - 1, 300).astype(int))
        write_csv(folder / "curves/pr.csv", recall=recall[keep], precision=precision[keep])
        edges = np.linspace(0, 1, 51)
        write_csv(
            folder / "curves/histogram.csv",
            score=edges[:-1],
            in_distribution=np.histogram(low, edges)[0],
            ood=np.histogram(high, edges)[0],
        )
        false = 120 + int(rng.integers(60)) - 60 * after
        thresholds = np.linspace(0, 1, 21)
        write_csv(
            folder / "curves/trade_off.csv",
            threshold=thresholds,
            false_positives=np.round(false * thresholds**1.5),
            false_negatives=np.round(4 + 20 * (1 - thresholds) ** 3),
        )
        write_csv(
            folder / "curves/meta_calibration.csv",
            predicted=[0.1, 0.5, 0.9],
            observed=[0.2, 0.5, 0.8 + 0.1 * after],
            segments=[10, 10, 20],
        )
        metrics |= {
            "auroc": auc(fpr, tpr),
            "auprc": average_precision_score(truth, score),
            "fpr95": fpr[np.argmax(tpr >= 0.95)],
            "segment_false_positives": false,
            "segment_false_positives_after_meta": round(0.35 * false),
            "segment_false_negatives": 9 - 5 * after,
            "segment_false_negatives_after_meta": 11 - 5 * after,
            "true_segments_removed": 3,
        }
        metrics["intervals"] = {
            key: [metrics[key] - 0.02, min(1, metrics[key] + 0.015)] for key in ("auroc", "auprc", "fpr95")
        }
        metrics["scores"] = {
            name: {key: metrics[key] * factor for key in ("auroc", "auprc", "fpr95")}
            for name, factor in (("entropy", 1), ("max_logit", 0.99), ("energy", 0.98))
        }
        metrics["score"] = "entropy"
        metrics["detection"] = {
            "size": {
                "1-100": {"components": 12, "found": 6, "found_after_meta": 4 + after},
                "100-1000": {"components": 18, "found": 17, "found_after_meta": 15},
                "1000-1e+09": {"components": 0, "found": 0, "found_after_meta": 0},
            },
            "label_id": {
                "Tire": {"components": 20, "found": 17, "found_after_meta": 13 + after},
                "Kid (on a bobby car)": {"components": 10, "found": 6, "found_after_meta": 6},
            },
        }
        same = np.random.default_rng(3).normal(0, 0.01, 60)
        keys = ("auroc", "auprc", "fpr95")
        own = {key: metrics[key] + same + rng.normal(0, 0.002, 60) for key in keys}
        write_csv(folder / "curves/bootstrap.csv", **own, miou=np.full(60, np.nan))
        metrics["protocols"] = {
            "exact": metrics["scores"],
            "published": {"entropy": {key: metrics[key] - 0.01 for key in ("auroc", "auprc")}},
        }
        metrics["segment"] = {
            name: {
                "true_positives": true,
                "false_positives": metrics[f"segment_false_positives{suffix}"],
                "false_negatives": metrics[f"segment_false_negatives{suffix}"],
                "f1": 0.3 + 0.2 * (suffix != "") + 0.1 * after,
            }
            for name, suffix, true in (("before", "", 30), ("after_meta", "_after_meta", 27))
        }
        metrics["component"] = {
            "before": {"siou": 0.4 + 0.1 * after, "ppv": 0.3, "f1": 0.35, "components": 30},
            "after_meta": {"siou": 0.38 + 0.1 * after, "ppv": 0.6, "f1": 0.5, "components": 30},
        }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for index in range(pictures):
        write_pictures(folder / "pictures", f"scene{index:02d}_000019", after, size)


def write_pictures(folder, image_id, after, size):
    height, width = size
    rng = np.random.default_rng(int(image_id[5:7]))
    rows, columns = np.mgrid[:height, :width] / height
    sky, road = rows < 0.4, rows > 0.5 + 0.1 * np.abs(columns - 1)
    image = np.where(sky[..., None], (150, 180, 220), (105, 115, 95))
    image = np.where(road[..., None], (90, 88, 92), image) + rng.normal(0, 6, (*size, 1))
    centre = 0.72 + 0.1 * rng.random(), 0.6 + 0.8 * rng.random()
    thing = np.hypot(rows - centre[0], columns - centre[1]) < 0.1
    image[thing] = (196, 60, 40)
    target = np.where(road, IN, IGNORE).astype(np.uint8)
    target[thing] = OOD
    score = 0.15 + 0.1 * rng.random(size) + (0.75 if after else 0.3) * thing
    noise = np.hypot(rows - 0.6, columns - 0.3) < 0.06
    score = np.where(noise, 0.8, score).astype(np.float32)
    labels = np.where(thing & (score > 0.6), 1, np.where(noise, 2, 0)).astype(np.int32)
    classes = np.where(sky, 10, np.where(road, 0, 8)).astype(np.uint8)
    picture = np.clip(image, 0, 255).astype(np.uint8)
    removed = np.array([False, True])
    for kind, array in (
        ("image", picture),
        ("target", overlays.label_map(target)),
        ("score", overlays.score_map(score)),
        ("classes", overlays.label_map(classes)),
        ("segments", overlays.segments_map(picture, labels, removed, target)),
    ):
        write_image(folder / f"{image_id}_{kind}.png", array)


def write_evaluation(root, *, pictures=1, size=(32, 64), pixels=4000):
    for network in NETWORKS:
        for variant in VARIANTS:
            for dataset in DATASETS:
                write_cell(
                    root / network / variant / dataset,
                    network,
                    variant,
                    dataset,
                    pictures=pictures,
                    size=size,
                    pixels=pixels,
                )
