"""A small demo world for tests."""

from pathlib import Path

from meta_ood import config
from meta_ood.data.context import Machine, no_log
from meta_ood.pipeline import synthesize

REPOSITORY = Path(__file__).parents[2]
DATASETS = ("cityscapes", "coco", "lost_and_found", "fishyscapes")


def small_params(seed=0):
    params = config.load(REPOSITORY / "params.yaml")
    small = config.SynthesizeParams(
        height=64, width=128, cityscapes_train=8, cityscapes_val=8, coco=30, lost_and_found=11, fishyscapes=4
    )
    return params.model_copy(update={"seed": seed, "synthesize": small})


def synthesize_to(root, params):
    paths = {name: root / name for name in DATASETS}
    synthesize.run(params, **paths, log=no_log, machine=Machine(workers=1))
