"""`meta-ood prepare` on COCO as a function of its size: seconds and peak memory of the process.

    python benchmarks/coco_scale.py [--images 2000 20000 118287] [--workers 1] [--list]

Each set is synthesised with the numbers of the real one: 7.3 annotations an image, 80 categories, polygons of 8 to 40
corners, 1 % run lengths, a json of 4.4 kB an image (522 MB at full size), images of 480 x 640 px and the like, about
150 kB each (a few files, linked under all names). A set is prepared in a process of its own. `--list` only lists the
proxies: what the json costs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from meta_ood.datasets.coco import EXCLUDES

PARAMS = Path(__file__).parents[1] / "configs" / "paper.yaml"
SIZES = ((480, 640), (640, 480), (427, 640))
"""Heights and widths [px]; the last is below the least side of 480."""
PER_IMAGE = 860001 / 118287
"""Annotations an image."""
NAMES = (*EXCLUDES["street"], *(f"category {number}" for number in range(71)))
LISTING = (
    "import sys; from pathlib import Path; from meta_ood.datasets import read; "
    "read('coco', Path(sys.argv[1]), 'train2017', {'exclude': 'published'})"
)


def segmentation(rng, height, width):
    """Return the text of one annotation's outline."""
    if rng.random() < 0.01:
        counts = [width - 7, 7] * height
        return json.dumps({"counts": counts, "size": [height, width]})
    corners = int(rng.integers(8, 41))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.05, 0.25) * height * rng.uniform(0.8, 1, corners)
    x = np.clip(rng.uniform(0.2, 0.8) * width + radius * np.cos(angle), 0, width)
    y = np.clip(rng.uniform(0.2, 0.8) * height + radius * np.sin(angle), 0, height)
    return json.dumps([np.stack((x, y), 1).round(2).ravel().tolist()])


def write_set(root, count):
    """Write `count` images and their json below `root`."""
    rng = np.random.default_rng(0)
    folder = root / "train2017"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir()
    sources = []
    for number in range(4 * len(SIZES)):  # a file can have 65000 names at most
        height, width = SIZES[number % len(SIZES)]
        sources.append(root / f"source{number}.jpg")
        noise = rng.normal(128, 24, (height // 2, width // 2, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).resize((width, height)).save(sources[-1], quality=93)
    outlines = [[segmentation(rng, *size) for _ in range(400)] for size in SIZES]
    images, annotations = [], []
    for number in range(count):
        kind = number % len(sources)
        height, width = SIZES[kind % len(SIZES)]
        name = f"{number:012d}.jpg"
        os.link(sources[kind], folder / name)
        url = f"coco.invalid/train2017/{name}"
        images.append(
            f'{{"license": 3, "file_name": "{name}", "coco_url": "{url}", "height": {height}, '
            f'"width": {width}, "date_captured": "2013-11-14 11:18:45", "flickr_url": "{url}", '
            f'"id": {number}}}'
        )
        for _ in range(rng.poisson(PER_IMAGE)):
            outline = outlines[kind % len(SIZES)][rng.integers(400)]
            annotations.append(
                f'{{"segmentation": {outline}, "area": 2765.1486, "iscrowd": 0, '
                f'"image_id": {number}, "bbox": [199.84, 200.46, 77.71, 70.88], '
                f'"category_id": {rng.integers(1, 81)}, "id": {len(annotations)}}}'
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    path = root / "annotations" / "instances_train2017.json"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "images": [')
        file.write(", ".join(images) + '], "annotations": [')
        file.write(", ".join(annotations) + f'], "categories": {json.dumps(categories)}}}')
    return path.stat().st_size / 1e6


def measured(command, folder):
    """Run a command; return seconds of wall clock and of processor time, and peak memory [MB]."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, f"{command} failed"
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    """Print one row a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20000, 118287])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    print(f"{'images':>7} {'json MB':>8} {'proxies':>8} {'wall s':>8} {'CPU s':>8} {'peak MB':>8}")
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            root = folder / "data" / "raw" / "coco"
            # In a process of its own: a child's peak begins at the memory of who started it.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                size = pool.apply(write_set, (root, count))
            command = [sys.executable, "-m", "meta_ood", "prepare", "--dataset", "coco"]
            command += ["--params", str(PARAMS), "--workers", str(arguments.workers)]
            command += ["--no-track"]
            if arguments.list:
                command = [sys.executable, "-c", LISTING, str(root)]
            wall, processor, peak = measured(command, folder)
            proxies = len(list((folder / "data" / "prepare" / "coco" / "targets").glob("*")))
            print(f"{count:>7} {size:>8.0f} {proxies or '':>8} {wall:>8.1f} {processor:>8.1f} {peak:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
