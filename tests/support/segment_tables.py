"""A table of segments by hand: only the columns that meta classification reads."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parents[1] / "reference"


@dataclass(frozen=True)
class Table:
    image_ids: tuple[str, ...]
    scenes: tuple[str, ...]
    image: np.ndarray
    features: np.ndarray
    feature_names: tuple[str, ...]
    iou: np.ndarray

    def rows(self, keep) -> "Table":
        return replace(self, image=self.image[keep], features=self.features[keep], iou=self.iou[keep])


def reference_table(case: str, tag: str) -> tuple[Table, dict[str, np.ndarray]]:
    """Return the 12 images of the published protocol, four scenes of three, and its figures."""
    with np.load(REFERENCE / f"g5_{case}.npz", allow_pickle=False) as stored:
        figures = {k.removeprefix(f"{tag}_"): stored[k] for k in stored.files if k.startswith(tag)}
    table = Table(
        image_ids=tuple(f"image{i}" for i in range(12)),
        scenes=tuple(f"scene{i // 3}" for i in range(12)),
        image=np.repeat(np.arange(12), np.diff(figures["start"])),
        features=figures["X_raw"],
        feature_names=tuple(str(n) for n in figures["names"]),
        iou=figures["iou"],
    )
    return table, figures


def random_table(seed: int, segments: int = 60, features: int = 5, scenes: int = 4) -> Table:
    """Return segments whose first feature says something about being false."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(segments, features)) * 10.0 ** rng.integers(-3, 4, features)
    informed = values[:, 0] / values[:, 0].std() + rng.normal(size=segments) > 0
    images = 3 * scenes
    return Table(
        image_ids=tuple(f"i{i}" for i in range(images)),
        scenes=tuple(f"s{i // 3}" for i in range(images)),
        image=np.sort(rng.integers(0, images, segments)),
        features=values,
        feature_names=tuple(f"f{i}" for i in range(features)),
        iou=np.where(informed, 0.0, rng.uniform(0.1, 1, segments)),
    )
