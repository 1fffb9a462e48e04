# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Train on your own data
#
# A folder of photos with labels, a folder of objects to learn from, a folder to be tested on, and one `params.yaml`:
# this page takes them through the pipeline in half a minute of one core. The photos are drawn here, so that nothing
# needs to be fetched; yours only change the paths. Everything is written below `outputs/examples`.

# %%
import os
from pathlib import Path

import numpy as np
from PIL import Image

project = Path("outputs/examples/own_data")
project.mkdir(parents=True, exist_ok=True)
os.chdir(project)
os.environ["META_OOD_TRACKING"] = "off"  # no MLflow store for an example

# %% [markdown]
# ## 1. Photos and labels
#
# Labels are single-channel PNGs. Here they hold train ids of Cityscapes (0 road, 1 sidewalk, 2 building, 10 sky,
# 13 car). An obstacle has a value of its own, 200; its colours occur nowhere else.

# %%
HEIGHT, WIDTH = 64, 128


def street(rng: np.random.Generator, with_obstacle: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street: (H, W, 3) uint8, and its label map (H, W) uint8."""
    labels = np.full((HEIGHT, WIDTH), 10, np.uint8)
    for left in range(0, WIDTH, 16):
        labels[rng.integers(4, 20) : 32, left : left + 16] = 2
    labels[32:] = 1
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    labels[(rows >= 32) & (abs(columns - 64) < 8 + 1.6 * (rows - 32))] = 0
    bottom, left = rng.integers(40, 56), rng.integers(30, 80)
    labels[bottom - 10 : bottom, left : left + 16] = 13
    colours = {0: (90, 90, 95), 1: (150, 130, 120), 2: (170, 110, 80), 10: (150, 190, 230), 13: (40, 60, 150)}
    image = np.zeros((HEIGHT, WIDTH, 3))
    for label, colour in colours.items():
        image[labels == label] = np.array(colour) + rng.normal(0, 8, 3)
    if with_obstacle:
        row, column, size = rng.integers(42, 58), rng.integers(40, 90), rng.integers(4, 8)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < size**2
        image[inside] = rng.uniform([150, 20, 20], [250, 200, 60])
        labels[inside] = 200
    return np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8), labels


def proxy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an unknown object on a plain ground: (H, W, 3) uint8, and its mask, 1 on the object."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((rows - 32) / rng.uniform(6, 20)) ** 2 + ((columns - 64) / rng.uniform(6, 20)) ** 2 < 1
    image = np.full((HEIGHT, WIDTH, 3), 128.0)
    image[mask] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8), mask.astype(np.uint8)


def save(folder: str, number: int, pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Write FOLDER/photos/NUMBER.png and FOLDER/labels/NUMBER.png."""
    for kind, pixels in zip(("photos", "labels"), pair, strict=True):
        path = Path(folder, kind, f"{number:04d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


rng = np.random.default_rng(0)
for number in range(24):
    save("my/train", number, street(rng, with_obstacle=False))
    save("my/objects", number, proxy(rng))
for number in range(8):
    save("my/validation", number, street(rng, with_obstacle=False))
for number in range(12):
    save("my/test", number, street(rng, with_obstacle=True))

Image.fromarray(np.hstack([street(rng, True)[0], proxy(rng)[0]])).resize((768, 192), Image.Resampling.NEAREST)

# %% [markdown]
# ## 2. params.yaml
#
# The reader `folder` takes any layout: `{id}` stands for the frame's name. `labels` names an encoding, or says what
# each value means. Keys that are left out have their defaults; [all of them](../docs/reference/parameters.md).

# %%
Path("params.yaml").write_text("""
seed: 0
networks: [small]
variants: [baseline, ood_trained]
evaluation_sets: [my_test]
roles: {training: my_train, validation: my_validation, proxies: my_objects}
datasets:
  my_train: &classes
    reader: folder
    root: my
    split: train
    options: &paths
      images: "{split}/photos/{id}.png"
      targets: "{split}/labels/{id}.png"
      labels: cityscapes_train_ids
  my_validation: {<<: *classes, split: validation}
  my_objects: {<<: *classes, split: objects, options: {<<: *paths, labels: {0: ignore, 1: ood}}}
  my_test:
    <<: *classes
    split: test
    options: {<<: *paths, labels: {0: road, 1: sidewalk, 2: building, 10: sky, 13: car, 200: ood}}
network:
  small: {architecture: deeplabv3plus_mini}
pretrain: {epochs: 20, batch_size: 4, crop: 64, learning_rate: 0.003, optimizer: adamw, schedule: poly}
train: {epochs: 8, batch_size: 4, crop: 64, learning_rate: 0.002, schedule: poly, proxy_style: pasted, proxy_ratio: 1.0}
infer: {}
segments: {threshold: 0.5}
meta: {folds: image}
evaluate: {bootstrap: 50, pictures: 1}
detector: {meta_from: my_test}
report: {title: my data}
tracking: {}
# the demo world, which this project does not draw
synthesize: {height: 64, width: 128, cityscapes_train: 1, cityscapes_val: 1, coco: 1, lost_and_found: 1, fishyscapes: 1}
""")
# %% [markdown]
# ## 3. The stages
#
# Each is a command, here called from Python: `meta-ood prepare --dataset my_train`, and so on. In a project of your own
# `dvc repro report` runs all of them, and only what a change touches.

# %%
from meta_ood.cli import main


def run(stage: str, **keys: str) -> None:
    """Run ``meta-ood STAGE --KEY VALUE ...``."""
    options = [text for key, value in keys.items() for text in (f"--{key}", value)]
    main(["--quiet", stage, *options], standalone_mode=False)


for dataset in ("my_train", "my_validation", "my_objects", "my_test"):
    run("prepare", dataset=dataset)
run("pretrain", network="small")
run("train", network="small")
for variant in ("baseline", "ood_trained"):
    cell = {"network": "small", "variant": variant, "dataset": "my_test"}
    run("statistics", network="small", variant=variant)
    run("infer", **cell)
    run("segments", **cell)
    run("meta", network="small", variant=variant)
    run("evaluate", **cell)
    run("detector", network="small", variant=variant)
run("report")

# %% [markdown]
# ## 4. A frame, before and after
#
# Left: the frame. Middle: the entropy of the baseline, from dark (0) to bright (1). Right: after OoD training.

# %%
from meta_ood import Detector
from meta_ood.data.overlays import score_map

frame = Path("my/test/photos/0003.png")
detectors = {variant: Detector.load(f"data/detectors/small/{variant}") for variant in ("baseline", "ood_trained")}
scores = [score_map(detector(frame).score) for detector in detectors.values()]
Image.fromarray(np.hstack([np.asarray(Image.open(frame)), *scores])).resize((1152, 192), Image.Resampling.NEAREST)

# %% [markdown]
# The whole page of results is `data/report/index.html` in that folder. Next: [choose an operating
# point](../docs/operating-point.md), or [detect on your photos](../docs/own-photos.md) with
# `data/detectors/small/ood_trained`.
