"""Stage `statistics`: what the scores of ``infer.scores`` need to know of the training frames."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.files import resume_folder
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
    """Write the statistics of the training frames; a file without tensors, at once, if no chosen score needs any.

    A killed run goes on where it last kept its sums, in the resume folder.
    """
    if not fitted_scores(params.infer.scores):
        write_statistics(statistics, {})
        return
    net, made_of = checkpoint.load(weights, params.network_params(network).architecture)
    frames = [frame for folder in training for frame in read_frames(folder, Path.cwd())]
    own = ("statistics", network, variant, params.infer, params.seed)
    files = [weights, *(folder / "frames.csv" for folder in training)]
    gathered = resume_folder(own, files, [frame.target for frame in frames])
    classes = made_of["num_classes"]
    found = fit(net, frames, params.infer, machine, classes, params.seed, gathered / "state.safetensors")
    write_statistics(statistics, found)
    shutil.rmtree(gathered, ignore_errors=True)  # there is none if there were few frames
    log({"statistics/frames": float(len(frames))}, 0)
