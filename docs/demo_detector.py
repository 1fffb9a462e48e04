"""The detector that the package carries, and README's first picture.

``python docs/demo_detector.py pack`` makes src/meta_ood/detector/demo_files anew: the detector of a finished
``make demo`` and three frames that the demo world draws with another seed. ``picture`` writes README's picture with
``meta-ood detect --demo``; ``check``, which CI calls, fails if that is no longer what README shows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from meta_ood.data.files import file_hash, write_bytes, write_text
from meta_ood.data.images import read_image
from meta_ood.demo import write
from meta_ood.detector.demo import DETECTOR, PHOTOS, PICTURE

TRAINED = Path("data/detectors/dualgcn_mini/ood_trained")  # the smaller of the demo's networks, 1.3 MB
README = Path("docs/pictures/detect-demo.png")
SEED = 1  # make demo draws with seed 0: no photo shows a street of its datasets
SIZE = (128, 256)
PHOTOS_OF = {
    "cone.png": "3/leftImg8bit/test/3/3_000002_000010_leftImg8bit.png",
    "beacon.png": "6/leftImg8bit/test/6/6_000002_000010_leftImg8bit.png",
    "box.jpg": "Static/0007_hafen_000007_000019.jpg",
}
# rounding differs between machines: a score at the threshold may fall on the other side
MOST_DIFFERING = 0.005

ABOUT = """\
# The demo's detector and three drawn photos

For `meta-ood detect --demo`. The detector is `{trained}` of `make demo` at git
revision {revision} (params.yaml as committed, seed 0, torch {torch}). The photos are frames that the demo world
(`meta_ood.demo.write`) draws with seed {seed}: no network was trained on their streets. They were chosen, out of 44,
because they show both decisions and errors of both kinds; docs/results/demo.md measures how good the detector is.
Made by

    make demo && python docs/demo_detector.py pack && python docs/demo_detector.py picture

| file | SHA-256 |
| --- | --- |
{rows}
"""


def pack() -> None:
    """Write the package's detector, photos and the text on where they are from."""
    shutil.rmtree(DETECTOR, ignore_errors=True)
    shutil.copytree(TRAINED, DETECTOR)
    with tempfile.TemporaryDirectory() as folder:
        for index in (3, 6):
            write.write_lost_and_found_scene(Path(folder, str(index)), str(index), 4, SEED, index, *SIZE)
        write.write_static_frame(Path(folder), 7, SEED, *SIZE)
        for name, path in PHOTOS_OF.items():
            write_bytes(PHOTOS / name, Path(folder, path).read_bytes())
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    paths = sorted(path for path in DETECTOR.rglob("*") if path.is_file())
    rows = "\n".join(f"| {path.relative_to(DETECTOR).as_posix()} | `{file_hash(path)}` |" for path in paths)
    values = {"trained": TRAINED.as_posix(), "revision": revision, "torch": torch.__version__.partition("+")[0]}
    write_text(DETECTOR / "README.md", ABOUT.format(seed=SEED, rows=rows, **values))


def picture(target: Path) -> None:
    """Write the picture of `meta-ood detect --demo`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "meta_ood", "-q", "detect", "--demo", "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # smaller than what `detect` writes, which is to be quick; the same pixels
        Image.open(Path(folder, PICTURE)).save(target, optimize=True)


def check() -> int:
    """Return 1 if README's picture is not that of the present code."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder, PICTURE)
        picture(fresh)
        shown, made = read_image(README), read_image(fresh)
    differing = float((shown != made).any(axis=2).mean()) if shown.shape == made.shape else 1.0
    sys.stdout.write(f"{README}: {differing:.2%} of the pixels differ from what `meta-ood detect --demo` shows\n")
    return int(differing > MOST_DIFFERING)


if __name__ == "__main__":
    actions = {"pack": pack, "picture": lambda: picture(README), "check": check}
    sys.exit(actions[sys.argv[1]]())
