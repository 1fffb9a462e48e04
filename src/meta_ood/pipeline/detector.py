"""Stage `detector`: weights and meta classifier of one network as one self-contained folder."""

from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.detector.folder import Settings, write_folder


def run(
    params: Params, *, network: str, variant: str, weights: Path, meta: Path, detector: Path, log: Log, machine: Machine
) -> None:
    """Write the folder that ``Detector.load`` reads, with the meta classifier fitted on ``detector.meta_from``."""
    own = params.segments  # the weights file names its network and variant
    settings = Settings(
        score=own.score, threshold=own.threshold, infer=params.infer, meta_from=params.detector.meta_from
    )
    write_folder(detector, weights, meta, settings)
