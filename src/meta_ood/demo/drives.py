"""Drawn drives: a camera moves through one street past objects that stay where they are, in LostAndFound's layout."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from meta_ood.data.files import write_csv
from meta_ood.demo.street import aim
from meta_ood.demo.world import Extra, sample_world
from meta_ood.demo.write import light, obstacle, write_lost_and_found_frame

LIST = "frames.csv"  # in the root: source, id, sequence, time, as `meta-ood scan` reads it
FRAMES_PER_SECOND, METRES_PER_FRAME = 10.0, 0.6  # 6 m/s
_SEED = 11  # part of the seed: no street of the demo world's datasets


def write_drives(root: Path, count: int, frames: int, *, seed: int, height: int, width: int) -> Iterator[int]:
    """Write `count` drives of `frames` images with their labels, and :data:`LIST` with their times.

    Args:
        root: Raw root of a LostAndFound, split ``test``; files of the same name are replaced.
        count, frames: Numbers of drives, and of frames of each.
        seed, height, width: Of the pictures [px].

    Yields:
        1 after each frame.
    """
    rows: list[tuple[str, str, str, float]] = []
    for drive in range(count):
        rng = np.random.default_rng([seed, _SEED, drive])
        length = METRES_PER_FRAME * frames
        street = sample_world(rng, drive, things=False, length=length)
        camera, start = aim(rng, height, width), float(rng.uniform(0, 1))
        # 1. an object every 5 to 15 m; the last ones are seen from afar only
        objects: list[Extra] = []
        z = float(rng.uniform(8, 18))
        while z < length + 10:
            objects.append(obstacle(rng, street, len(objects), start, z))
            z += float(rng.uniform(5, 15))
        world, day = replace(street, extras=tuple(objects)), light(rng)
        # 2. the drive: the car sways across the lane every 20 s, and pitches by up to half a pixel in 128
        sequence, sway = f"{drive:02d}_Drive_000000", float(rng.uniform(0, 2 * np.pi))
        for step in range(frames):
            time = step / FRAMES_PER_SECOND
            own = np.random.default_rng([seed, _SEED, drive, step])
            across, level = camera.vanishing
            vanishing = across, level + float(own.uniform(-0.5, 0.5)) * height / 128
            x = camera.x + 0.3 * float(np.sin(sway + 2 * np.pi * time / 20))
            moved = replace(camera, x=x, z=METRES_PER_FRAME * step, vanishing=vanishing)
            name = f"{sequence}_{10 * (step + 1):06d}"
            image = write_lost_and_found_frame(root, name, own, world, moved, day, height, width)
            rows.append((image.relative_to(root).as_posix(), name, sequence, time))
            yield 1
    write_csv(root / LIST, ("source", "id", "sequence", "time"), rows)
