"""Stage `infer`: every frame of a dataset through a network, one HDF5 file per frame."""

from pathlib import Path
from typing import Any

from meta_ood.config import Params
from meta_ood.data import prediction_files
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.files import file_hash, replace_folder, resume_folder
from meta_ood.data.frames import read_frames
from meta_ood.data.images import image_size
from meta_ood.data.predictions import Prediction
from meta_ood.inference import predict, processes, write_behind
from meta_ood.inference.statistics import read_statistics
from meta_ood.models import checkpoint
from meta_ood.scores import fitted_scores


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    prepared: Path,
    weights: Path,
    statistics: Path,
    predictions: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write ``predictions/<image_id>.h5`` for every frame of the dataset `prepared`.

    They are written into the resume folder until all are there. Under torchrun the processes share the frames.
    """
    net, made_of = checkpoint.load(weights, params.network_params(network).architecture)
    frames = sorted(read_frames(prepared, Path.cwd()), key=lambda frame: frame.image_id)
    # predictions contain the targets, so changed targets make predictions of an earlier run useless
    labels = [path for frame in frames for path in (frame.target, frame.label_ids) if path]
    own = ("infer", network, variant, dataset, params.infer)
    fitted = [statistics] if fitted_scores(params.infer.scores) else []  # else the file need not be there
    repetition = params.infer.repetition
    ensemble = repetition.files(network, variant) if repetition else []
    others = [checkpoint.load_alike(path, made_of) for path in ensemble]
    gathered = resume_folder(own, (prepared / "frames.csv", weights, *fitted, *ensemble), labels)
    gathered.mkdir(parents=True, exist_ok=True)

    about: dict[str, Any] = {"class_names": made_of["class_names"], "network": f"{network}/{variant}"}
    about["weights_sha256"] = file_hash(weights)

    def write(prediction: Prediction) -> None:
        prediction_files.write_prediction(gathered / f"{prediction.image_id}.h5", prediction, **about)

    with processes() as (rank, number):
        # 1. the frames of this process that no killed run has done
        todo = [f for f in frames[rank::number] if not (gathered / f"{f.image_id}.h5").is_file()]
        if params.infer.batch_size > 1:
            todo.sort(key=lambda frame: image_size(frame.image))  # a batch takes neighbours of one size
        # 2. the next frame is computed while the last ones are written
        known = read_statistics(statistics) if fitted else None
        made = write_behind(predict(net, todo, params.infer, machine, known, others), write)
        for _ in progress(made, f"infer {network} {variant} {dataset}", len(todo)):
            pass
    # 3. all processes are done here
    if rank == 0:
        prediction_files.open_predictions(gathered, [frame.image_id for frame in frames])
        replace_folder(gathered, predictions)
    log({"infer/frames": float(len(frames))}, 0)
