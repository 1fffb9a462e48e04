"""Stage `statistics`: what the scores of ``infer.scores`` need to know of the training frames."""

from collections.abc import Sequence
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.frames import read_frames
from meta_ood.inference.statistics import fit, write_statistics
from meta_ood.models import checkpoint
from meta_ood.scores import fitted_scores


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    training: Sequence[Path],
    weights: Path,
    statistics: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write the statistics of the training frames; a file without tensors, at once, if no chosen score needs any."""
    del variant
    if not fitted_scores(params.infer.scores):
        write_statistics(statistics, {})
        return
    net, made_of = checkpoint.load(weights, params.network_params(network).architecture)
    frames = [frame for folder in training for frame in read_frames(folder, Path.cwd())]
    found = fit(net, frames, params.infer, machine, made_of["num_classes"], params.seed)
    write_statistics(statistics, found)
    log({"statistics/frames": float(len(frames))}, 0)
