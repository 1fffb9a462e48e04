# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Evaluate somebody else's score maps
#
# You have score maps of any method, one `(H, W)` array a frame, higher = more out-of-distribution, and label maps. No
# network is needed to evaluate them, by our definitions or by those of a benchmark. Everything is written below
# `outputs/examples`.

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from meta_ood.evaluation.maps import chosen_threshold, evaluate_maps, maps_text, pair_files

folder = Path("outputs/examples/score_maps")

# %% [markdown]
# ## The maps
#
# Twelve frames with round objects: 0 is known, 1 is unknown, 255 is not judged. Two methods score them. `soft` is high
# around the objects, also a few pixels beside them. `sharp` keeps to their edges, but is as high in small spots of
# noise. The first six frames are for choices, the others for the result.

# %%
HEIGHT, WIDTH = 96, 192
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:HEIGHT, :WIDTH]


def frame() -> dict[str, np.ndarray]:
    """Draw a label map and the score maps of both methods."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(3):
        row, column, radius = rng.uniform([20, 10, 4], [80, 180, 12])
        labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 1
    soft = gaussian_filter(labels.astype(float), 5) + 0.08 * gaussian_filter(rng.normal(size=labels.shape), 3) / 0.09
    sharp = 0.8 * np.maximum(labels, rng.random(labels.shape) > 0.999) + 0.1 * rng.normal(size=labels.shape)
    labels[:8] = 255
    return {"labels": labels, "soft": soft.astype(np.float32), "sharp": sharp.astype(np.float32)}


for number in range(12):
    part = "validation" if number < 6 else "test"
    drawn = frame()
    for name, values in drawn.items():
        path = folder / part / name / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path) if name == "labels" else np.save(path.with_suffix(".npy"), values)

seen = [np.clip(255 * drawn[name], 0, 255).astype(np.uint8) for name in ("labels", "soft", "sharp")]
Image.fromarray(np.hstack(seen)).resize((1152, 192), Image.Resampling.NEAREST)

# %% [markdown]
# ## Pixels and components
#
# On the command line this is `meta-ood evaluate-maps --scores FOLDER --targets FOLDER --protocol exact --protocol smiyc
# --track all`. Maps are `.npy`, `.npz`, `.h5`, `.tif` or `.png`; they belong to the label map of the same name.

# %%
for method in ("soft", "sharp"):
    pairs = pair_files(folder / "test" / method, folder / "test/labels")
    print(f"{method}\n{maps_text(evaluate_maps(pairs, ('exact', 'per_image_mean'), track='all'))}\n")

# %% [markdown]
# Which method is better depends on what is asked for: pixels weigh large objects, components count each object once.
# Only figures of one protocol can be compared.
#
# ## A threshold that has not seen the test
#
# The threshold above is the best one of the evaluated set, an oracle. An honest one comes from other frames
# (`--out validation.json` there, `--threshold-from validation.json` here).

# %%
import json

for method in ("soft", "sharp"):
    first = evaluate_maps(pair_files(folder / "validation" / method, folder / "validation/labels"), track="all")
    chosen = folder / f"{method}.json"
    chosen.write_text(json.dumps({"component": first["component"]}), encoding="utf-8")
    pairs = pair_files(folder / "test" / method, folder / "test/labels")
    found = evaluate_maps(pairs, track="all", threshold=chosen_threshold(chosen))["component"]
    print(f"{method}: mean F1 {100 * found['f1']:.1f} at the threshold {found['threshold']:.3f} of other frames")
