"""prepare against the plain loop over pycocotools and Pillow, frames of full size, one process.

    python benchmarks/prepare.py [--frames 12]

Prints, for each dataset, seconds of processor time per image (median of 3 runs; a busy machine changes it little),
images per second, the ratio to the plain loop in the same run, and what the whole dataset would take on one core.
Frames repeat two synthetic streets; COCO is as in ``coco_scale.py``, with the real numbers of annotations and corners.
Files are cached.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from coco_scale import write_set
from meta_ood.datasets import read
from meta_ood.datasets.preparation import prepare_frame
from meta_ood.demo.miniature import write_miniature

LIMIT = 1.5
"""Ours also hashes every image; both decode it whole and compare its size with that of its labels."""
PUBLISHED = {
    "cityscapes": 2975,
    "lost_and_found": 1203,
    "fishyscapes_lost_and_found": 100,
    "fishyscapes_static": 30,
    "road_anomaly": 60,
    "road_anomaly21": 110,
    "road_obstacle21": 442,
    "coco": 118287,
}


def plain_pairs(frames, table, out):
    """Read labels, translate them id by id, write them: what preparation scripts do."""
    for frame in frames:
        path = frame.target.args[0]
        with Image.open(frame.image) as image:
            size = image.size
            image.load()  # a frame that cannot be decoded is found now or in the middle of a training
            if frame.pixels is not None:
                overlay = np.load(str(path).replace("_labels.png", "_rgb.npz"))["rgb"]
                pixels = np.clip(np.array(image).astype(int) + overlay, 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(out / f"{frame.image_id}_rgb.png")
        labels = np.array(Image.open(path))
        target = np.full(labels.shape, 255, np.uint8)
        for label, value in table.items():
            target[labels == label] = value
        assert target.shape == size[::-1]
        Image.fromarray(target).save(out / f"{frame.image_id}.png")


def plain_coco(frames, annotations, split, out):
    """Decode every annotation with pycocotools, take the maximum, write it."""
    kept = {frame.image_id: frame.image for frame in frames}
    for image in annotations.loadImgs(annotations.getImgIds()):
        stem = Path(image["file_name"]).stem
        if stem not in kept:
            continue
        with Image.open(kept[stem]) as picture:
            picture.load()
        target = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in annotations.loadAnns(annotations.getAnnIds(image["id"])):
            target = np.maximum(target, annotations.annToMask(annotation) * np.uint8(254))
        Image.fromarray(target).save(out / f"{stem}.png")


def seconds(work, frames, folder):
    """Return the median over three runs of the time per frame."""
    taken = []
    for run in range(3):
        out = folder / str(run)
        out.mkdir(parents=True)
        start = time.process_time()
        work(out)
        taken.append((time.process_time() - start) / len(frames))
        shutil.rmtree(out)
    return statistics.median(taken)


def ours(frames):
    """Return what is timed."""

    def work(out):
        for frame in frames:
            prepare_frame(frame, out)

    return work


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--only", nargs="*", help="names of datasets")
    arguments = parser.parse_args()
    count, only = arguments.frames, arguments.only or list(PUBLISHED)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    print(
        f"{'dataset':<28} {'ours s':>8} {'plain s':>8} {'ratio':>6} {'limit':>6} {'img/s':>7} {'whole set, 1 core':>18}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dataset, split, options, (height, width) in (
            ("cityscapes", "train", {}, (1024, 2048)),
            ("lost_and_found", "test", {}, (1024, 2048)),
            ("fishyscapes_lost_and_found", "val", {}, (1024, 2048)),
            ("fishyscapes_static", "val", {"version": "v3"}, (1024, 2048)),
            ("road_anomaly", "all", {}, (720, 1280)),
            ("road_anomaly21", "val", {}, (720, 1280)),
            ("road_obstacle21", "val", {}, (1080, 1920)),
        ):
            if dataset not in only:
                continue
            root = folder / dataset
            kind = "_".join([dataset, *options.values()])
            write_miniature(root, kind, split, count, height=height, width=width, distinct=2)
            frames = read(dataset, root, split, options)
            table = frames[0].target.args[1]
            line(
                dataset,
                seconds(ours(frames), frames, folder / "ours"),
                seconds(lambda out, f=frames, t=table: plain_pairs(f, t, out), frames, folder / "plain"),
            )
            shutil.rmtree(root)
        if "coco" not in only:
            return
        root = folder / "coco"
        write_set(root, 50 * count)
        frames = read("coco", root, "train2017", {})
        with contextlib.redirect_stdout(io.StringIO()):
            annotations = COCO(str(root / "annotations" / "instances_train2017.json"))
        line(
            "coco",
            seconds(ours(frames), frames, folder / "ours"),
            seconds(lambda out: plain_coco(frames, annotations, "train2017", out), frames, folder / "plain"),
        )


def line(dataset, own, plain):
    """Print one row."""
    whole = own * PUBLISHED[dataset]
    print(
        f"{dataset:<28} {own:>8.4f} {plain:>8.4f} {own / plain:>6.2f} {LIMIT:>6.2f} "
        f"{1 / own:>7.1f} {whole / 60:>14.1f} min",
        flush=True,
    )


if __name__ == "__main__":
    main()
