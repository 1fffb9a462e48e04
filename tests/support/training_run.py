"""A small training that tests start in processes of their own, to kill it or to run it twice."""

from __future__ import annotations

import copy
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from meta_ood.config import OptimisationParams, load
from meta_ood.data.context import Machine, no_log
from meta_ood.data.frames import Frame
from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.inference import processes
from meta_ood.inference.processes import end_with_parent
from meta_ood.pipeline import pretrain
from meta_ood.training import loop
from meta_ood.training.loader import FrameSet, SegmentationDataset, mix_proxies, pool_of
from meta_ood.training.loop import fit, seeded
from meta_ood.training.losses import ood_objective
from meta_ood.training.transforms import Augmentation
from meta_ood.training.validation import Validation

CLASSES = 4
ROOT = Path(__file__).parents[2]
SMALL = ("epochs=1", "batch_size=4", "crop=32")
PARAMS = OptimisationParams(
    epochs=4,
    batch_size=4,
    crop=16,
    learning_rate=0.01,
    schedule="poly",
    scale_jitter=0.2,
    colour_jitter=0.2,
    checkpoint_every=3,
    validate_every=2,
)


class Tiny(nn.Module):
    """Three convolutions, stride 2."""

    align_corners = True
    output_stride = 2

    def __init__(self, normalise: bool = True, drop: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8) if normalise else nn.Identity(),
            nn.ReLU(),
            nn.Dropout2d(drop),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, CLASSES, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image)
        return logits


def write_frames(folder: Path, number: int, proxies: int = 0) -> list[Frame]:
    """Draw frames of coloured stripes; the last `proxies` hold an OoD square."""
    folder.mkdir(exist_ok=True)
    frames = []
    for index in range(number):
        rng = np.random.default_rng((index, 7))
        target = np.repeat(rng.integers(0, CLASSES, 6), 4)[:, None].repeat(32, 1).astype(np.uint8)
        target[:, :2] = IGNORE
        if index >= number - proxies:
            target[4:14, 10:20] = OOD
        colours = np.full((256, 3), 230)
        colours[:CLASSES] = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120)]
        image = colours[target] + rng.integers(-25, 25, (*target.shape, 3))
        frame = Frame(str(index), folder / f"{index}.png", "", folder / f"{index}_t.png", "")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(frame.image)
        Image.fromarray(target).save(frame.target)
        frames.append(frame)
    return frames


def train(
    folder: Path,
    *,
    seed: int = 0,
    resume: Path | None = None,
    curves: Path | None = None,
    die_at: int = 0,
    with_signal: int = 0,
    network: dict[str, Any] | None = None,
    log: Any = no_log,
    workers: int = 1,
    taught: bool = False,
    **changes: Any,
) -> tuple[nn.Module, dict[str, float]]:
    """Train Tiny on 20 streets and 8 proxies; at step `die_at` a signal may come.

    When `taught`, the last 8 streets are a set of their own, drawn more often, whose labels are not used.
    """
    frames = write_frames(folder, 28, 8) if not folder.exists() else frames_of(folder, 28)
    params = PARAMS.model_copy(update=changes)
    with seeded(seed):
        net = Tiny(**(network or {}))
    calls = [0]

    settings = load(ROOT / "params.yaml", ["train.ood_weight=0.3", f"train.distillation={0.5 * taught}"]).train
    loss = ood_objective(settings)

    def objective(*arguments: Any) -> Tensor:
        calls[0] += torch.is_grad_enabled()  # it is called without for the loss's terms
        if torch.is_grad_enabled() and calls[0] == die_at:
            os.kill(os.getpid(), with_signal)
        return loss(*arguments)

    sets = [FrameSet("streets", frames[:20])]
    if taught:
        bare = folder / "bare.png"
        Image.fromarray(np.full((24, 32), IN, np.uint8)).save(bare)
        drive = [replace(frame, target=bare) for frame in frames[12:20]]
        sets = [FrameSet("streets", frames[:12], 1.0), FrameSet("drive", drive, 2.0, scale=1.2)]

    metrics = fit(
        net,
        SegmentationDataset.of([*sets, FrameSet("proxies", frames[20:])], Augmentation(params.crop, 0.2, 0.2)),
        lambda epoch: mix_proxies(pool_of(sets), 8, 0.4, seed=seed, epoch=epoch),
        objective,
        params,
        num_classes=CLASSES,
        seed=seed,
        machine=Machine("cpu", workers),
        log=log,
        validation=Validation(SegmentationDataset(frames[14:]), proxies=True),
        resume=resume,
        curves=curves,
        teacher=copy.deepcopy(net) if taught else None,
        apart=["streets", "drive"] if taught else [],
    )
    return net, metrics


def frames_of(folder: Path, number: int) -> list[Frame]:
    return [Frame(str(i), folder / f"{i}.png", "", folder / f"{i}_t.png", "") for i in range(number)]


def killed(folder: Path, resume: Path, die_at: int, number: int = signal.SIGKILL, taught: bool = False) -> None:
    """Train in this process until a signal ends it."""
    torch.set_num_threads(1)
    train(folder, resume=resume, die_at=die_at, with_signal=number, taught=taught)


def environment(rank: int, port: int) -> dict[str, str]:
    """Return what torchrun tells one of two processes."""
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def reader(rank: int, port: int, folder: Path) -> None:
    """Leave a file, late, and see at the end that the other process has left its own."""
    os.environ |= environment(rank, port)
    with processes() as (own, number):
        time.sleep(0.3 * own)
        (folder / f"{own} of {number}").touch()
    if len(list(folder.iterdir())) != 2:
        raise AssertionError("left before the other was done")


def one_of_two(rank: int, port: int, folder: Path, out: Path) -> None:
    """Be one of two processes as torchrun starts them; the first writes curve and weights."""
    torch.set_num_threads(1)
    os.environ |= environment(rank, port)
    curve: list[float] = []
    net, metrics = train(
        folder,
        network={"normalise": False, "drop": 0.0},
        log=lambda values, step: curve.append(values.get("train/loss", -1.0)),
        accumulate=2,
    )
    if rank == 0:
        torch.save({"curve": curve, "metrics": metrics, "weights": net.state_dict()}, out)


def stopped_of_two(rank: int, port: int, folder: Path, resume: Path) -> None:
    """Be one of two processes; the second gets SIGTERM in step 5, the first writes slowly."""
    torch.set_num_threads(1)
    os.environ |= environment(rank, port)
    save = loop.save_checkpoint

    def slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        save(*arguments)

    loop.save_checkpoint = slowly
    try:
        train(folder, resume=resume, die_at=5 if rank else 0, with_signal=signal.SIGTERM)
    finally:
        if not (resume / "state.pt").is_file():
            raise AssertionError("left before the state was written")


def stage_of_two(rank: int, port: int, out: Path) -> None:
    """Be one of two processes of the stage pretrain; the second must not write."""
    torch.set_num_threads(1)
    os.environ |= environment(rank, port)
    os.chdir(out)
    if rank:
        pretrain.write_json = pretrain.checkpoint.save = None  # type: ignore[assignment]
    pretrain.run(
        load(ROOT / "params.yaml", [f"pretrain.{k}" for k in SMALL]),
        network="dualgcn_mini",
        training=[out / "frames"],
        validation=[out / "frames"],
        weights=out / "out" / "w.safetensors",
        metrics=out / "out" / "m.json",
        curves=out / "out" / "m.csv",
        log=no_log,
        machine=Machine("cpu", 1),
    )


def launcher(folder: Path) -> None:
    """Start a process that would run for ever, as torchrun does, and wait."""
    child = os.fork()
    if child == 0:
        os.environ["WORLD_SIZE"] = "2"
        end_with_parent()
        (folder / "child").write_text(str(os.getpid()))
    time.sleep(60)
