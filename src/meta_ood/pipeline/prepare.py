"""Stage `prepare`: a raw dataset -> frames.csv and one encoded target per frame."""

from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.frames import write_frames, write_label_names
from meta_ood.datasets import label_names, read
from meta_ood.datasets.preparation import prepare_frames, remove_left_overs


def run(params: Params, *, dataset: str, root: Path, prepared: Path, log: Log, machine: Machine) -> None:
    """Write ``frames.csv`` and ``targets/*.png`` of the raw dataset `root`, which is only read.

    Where the dataset's own label ids hold more than the targets, also ``label_ids/*.png`` and their names,
    ``labels.csv``.

    Raises:
        FileNotFoundError, ValueError: If the raw dataset is not as its reader expects; the file is named.
    """
    own = params.dataset_params(dataset)
    raw = read(own.reader, root, own.split, own.options)
    settings = own.model_dump() | {"root": str(root)}
    found = prepare_frames(raw, prepared, settings, machine.workers)
    frames = list(progress(found, f"prepare {dataset}", len(raw)))
    if not frames:
        raise ValueError(
            f"datasets.{dataset}: no frame is left of split {own.split!r} below {root} with the options {own.options}"
        )
    write_label_names(prepared, label_names(own.reader, own.options))
    write_frames(prepared, frames, Path.cwd())
    remove_left_overs(prepared, frames)
    scenes = len({frame.scene for frame in frames})
    log({"prepare/frames": float(len(frames)), "prepare/scenes": float(scenes)}, 0)
