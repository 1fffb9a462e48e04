"""Stage `infer`: every frame of a dataset through a network, one HDF5 file per frame."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from meta_ood.config import InferParams, Params
from meta_ood.data import prediction_files
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.files import file_hash, replace_folder, resume_folder
from meta_ood.data.frames import Frame, read_frames
from meta_ood.data.images import image_size
from meta_ood.data.predictions import Prediction
from meta_ood.data.workers import Item, Job, distribute
from meta_ood.inference import predict, processes, write_behind
from meta_ood.inference.statistics import read_statistics
from meta_ood.models import checkpoint
from meta_ood.scores import fitted_scores

_AT_ONCE = 16  # batches that a worker is given at a time


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
    frames = sorted(read_frames(prepared, Path.cwd()), key=lambda frame: frame.image_id)
    # predictions contain the targets, so changed targets make predictions of an earlier run useless
    labels = [path for frame in frames for path in (frame.target, frame.label_ids) if path]
    own = ("infer", network, variant, dataset, params.infer)
    fitted = [statistics] if fitted_scores(params.infer.scores) else []  # else the file need not be there
    repetition = params.infer.repetition
    ensemble = repetition.files(network, variant) if repetition else []
    gathered = resume_folder(own, (prepared / "frames.csv", weights, *fitted, *ensemble), labels)
    gathered.mkdir(parents=True, exist_ok=True)
    architecture, threads = params.network_params(network).architecture, torch.get_num_threads()
    alone = machine if machine.engine == "local" else replace(machine, workers=1)
    given: tuple[Any, ...] = (weights, architecture, f"{network}/{variant}", params.infer)
    given += (fitted, ensemble, gathered, alone, threads)

    with (
        processes() as (rank, number),
        progress((), f"infer {network} {variant} {dataset}", len(frames[rank::number])) as bar,
    ):
        # 1. the frames of this process that no killed run has done
        todo = [f for f in frames[rank::number] if not (gathered / f"{f.image_id}.h5").is_file()]
        bar.update(len(frames[rank::number]) - len(todo))
        if params.infer.batch_size > 1:
            todo.sort(key=lambda frame: image_size(frame.image))  # a batch takes neighbours of one size
        # 2. the others, here or by workers
        if machine.engine == "local":
            with _worker(*given) as do:
                for more in do(todo):
                    bar.update(more or 0)
        else:
            size = _AT_ONCE * params.infer.batch_size
            items = (Item(f"frames from {todo[k].image_id}", todo[k : k + size]) for k in range(0, len(todo), size))
            for more, _ in distribute(Job(_worker, given), items, machine):
                bar.update(more)
    # 3. all processes are done here
    if rank == 0:
        prediction_files.open_predictions(gathered, [frame.image_id for frame in frames])
        replace_folder(gathered, predictions)
    log({"infer/frames": float(len(frames))}, 0)


@contextmanager
def _worker(
    weights: Path,
    architecture: str,
    name: str,
    settings: InferParams,
    fitted: Sequence[Path],
    ensemble: Sequence[Path],
    gathered: Path,
    machine: Machine,
    threads: int,
) -> Iterator[Callable[[Sequence[Frame]], Iterator[int | None]]]:
    """Yield what writes predictions of frames, with so many threads of PyTorch, and yields 1 for each, then None."""
    torch.set_num_threads(threads)  # another number would sum in another order
    net, made_of = checkpoint.load(weights, architecture)
    others = [checkpoint.load_alike(path, made_of) for path in ensemble]
    about: dict[str, Any] = {"class_names": made_of["class_names"], "network": name}
    about["weights_sha256"] = file_hash(weights)
    known = read_statistics(fitted[0]) if fitted else None

    def write(prediction: Prediction) -> None:
        prediction_files.write_prediction(gathered / f"{prediction.image_id}.h5", prediction, **about)

    def do(frames: Sequence[Frame]) -> Iterator[int | None]:
        todo = [f for f in frames if not (gathered / f"{f.image_id}.h5").is_file()]  # a lost worker has done the others
        # the next frame is computed while the last ones are written
        for _ in write_behind(predict(net, todo, settings, machine, known, others), write):
            yield 1
        yield None

    yield do
