"""Pictures of docs/how-it-works.md, of the demo's outputs: ``python docs/pictures.py [DATA]`` after ``make demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from meta_ood.data.images import read_image, read_label_map
from meta_ood.data.overlays import label_map
from meta_ood.training.transforms import paste

OUT = Path(__file__).parent / "pictures"
FRAME = "04_Maurener_Weg_8_000002_000010"  # evaluate pictures it: a crate, a log and a pallet
STREET = "cityscapes/leftImg8bit/train"  # below the demo world
SCALE = 2  # of the demo's 128 x 256 px


def main(data: Path) -> None:
    """Write one picture a step."""
    cells = {
        variant: data / "evaluate/dualgcn_mini" / variant / "lost_and_found" for variant in ("baseline", "ood_trained")
    }

    def seen(variant: str, kind: str) -> np.ndarray:
        return read_image(cells[variant] / "pictures" / f"{FRAME}_{kind}.png")

    save("how-classes", seen("baseline", "image"), seen("baseline", "classes"))
    save("how-entropy", seen("baseline", "score"), seen("ood_trained", "score"))
    save("how-segments", seen("ood_trained", "image"), seen("ood_trained", "segments"))
    save("how-proxies", *proxies(data))


def proxies(data: Path) -> list[np.ndarray]:
    """Return a street with two pasted proxies, and its target."""
    frames = data / "prepare"
    street = sorted((data / "raw/demo" / STREET).rglob("*.png"))[3]
    target = sorted((frames / "cityscapes_train/targets").glob("*.png"))[3]
    pixels, labels = (
        torch.from_numpy(read_image(street).transpose(2, 0, 1).copy()),
        torch.from_numpy(read_label_map(target)),
    )
    generator = np.random.default_rng(5)
    for number in (4, 9):
        image = sorted((data / "raw/demo/coco/train2017").glob("*.jpg"))
        mask = frames / "coco/targets" / f"{image[number].stem}.png"
        proxy = torch.from_numpy(read_image(image[number]).transpose(2, 0, 1).copy())
        pixels, labels = paste(pixels, labels, proxy, torch.from_numpy(read_label_map(mask)), generator)
    return [pixels.numpy().transpose(1, 2, 0), label_map(labels.numpy())]


def save(name: str, *pictures: np.ndarray) -> None:
    """Write pictures side by side."""
    strip = Image.fromarray(np.hstack(pictures))
    size = (SCALE * strip.width, SCALE * strip.height)
    strip.resize(size, Image.Resampling.LANCZOS).save(OUT / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("data"))
