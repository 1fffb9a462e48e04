"""Stage `detector`: weights and meta classifier of one network as one self-contained folder."""

from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.detector.folder import Settings, write_folder
from meta_ood.meta_classification import promise
from meta_ood.meta_classification.promise import Promise


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    weights: Path,
    statistics: Path,
    meta: Path,
    detector: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write the folder that ``Detector.load`` reads.

    The promise is that of ``operating_point``; the meta classifier that of ``meta.train_on``, or where each set has its
    own that of ``detector.meta_from``.
    """
    own, train_on = params.segments, params.meta.train_on  # the weights file names its network and variant
    name = params.detector.meta_from if train_on is None else "+".join(train_on)
    settings = Settings(
        score=own.score,
        threshold=own.threshold,
        infer=params.infer,
        meta_from=name,
        promise=Promise.read(meta / promise.NAME) if params.operating_point else None,
    )
    repetition = params.infer.repetition
    members = repetition.files(network, variant) if repetition else []
    write_folder(detector, weights, meta if train_on is not None else meta / name, settings, statistics, members)
