"""Stage `synthesize`: the demo world, four miniature datasets in the real layouts."""

import shutil
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine, progress
from meta_ood.demo import write


def run(
    params: Params, *, cityscapes: Path, coco: Path, lost_and_found: Path, fishyscapes: Path, log: Log, machine: Machine
) -> None:
    """Draw the demo world; the same seed gives the same bytes. What the roots hold is replaced."""
    own, size = params.synthesize, (params.synthesize.height, params.synthesize.width)
    for root in (cityscapes, coco, lost_and_found, fishyscapes):
        if root.exists():
            shutil.rmtree(root)
    total = own.cityscapes_train + own.cityscapes_val + own.coco + own.lost_and_found + own.fishyscapes
    with progress((), "synthesize", total) as bar:
        for split, count in (("train", own.cityscapes_train), ("val", own.cityscapes_val)):
            for index in range(count):
                write.write_cityscapes_frame(cityscapes, split, index, params.seed, *size)
                bar.update()
        write.write_coco(coco, own.coco, params.seed, own.height, bar.update)
        names = write.scene_names(own.lost_and_found)
        for index, name in enumerate(names):
            frames = own.lost_and_found // len(names) + (index < own.lost_and_found % len(names))
            write.write_lost_and_found_scene(lost_and_found, name, frames, params.seed, index, *size)
            bar.update(frames)
        for index in range(own.fishyscapes):
            write.write_static_frame(fishyscapes, index, params.seed, *size)
            bar.update()
    log({"synthesize/frames": float(total)}, 0)
