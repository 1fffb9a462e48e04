"""Stage infer: every frame of a dataset through a network; one HDF5 file a frame."""

from __future__ import annotations

import shutil
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data import prediction_files
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.files import file_hash, resume_folder
from meta_ood.data.frames import read_frames
from meta_ood.data.predictions import Prediction
from meta_ood.inference import predict, processes, write_behind
from meta_ood.inference.batches import image_size
from meta_ood.models import checkpoint


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    prepared: Path,
    weights: Path,
    predictions: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write ``predictions/<image_id>.h5`` for every frame.

    They gather in a folder of their own until all are there, so that a killed run goes on where it was, and no run
    takes predictions of other weights for its own.
    """
    net, made_of = checkpoint.load(weights, params.network_params(network).architecture)
    weights_sha256 = file_hash(weights)
    gathered = resume_folder(
        ("infer", network, variant, dataset, params.infer, params.dataset_params(dataset)),
        (prepared / "frames.csv", weights),
    )
    gathered.mkdir(parents=True, exist_ok=True)

    def write(prediction: Prediction) -> None:
        prediction_files.write_prediction(
            gathered / f"{prediction.image_id}.h5",
            prediction,
            class_names=made_of["class_names"],
            network=f"{network}/{variant}",
            weights_sha256=weights_sha256,
        )

    with processes() as (rank, number):
        frames = sorted(read_frames(prepared, Path.cwd()), key=lambda frame: frame.image_id)
        todo = [f for f in frames[rank::number] if not (gathered / f"{f.image_id}.h5").is_file()]
        if params.infer.batch_size > 1:
            todo.sort(key=image_size)  # a batch takes neighbours of one size
        made = write_behind(predict(net, todo, params.infer, machine), write)
        for _ in progress(made, f"infer {network} {variant} {dataset}", len(todo)):
            pass
    if rank == 0:
        shutil.rmtree(predictions, ignore_errors=True)
        shutil.move(gathered, predictions)
