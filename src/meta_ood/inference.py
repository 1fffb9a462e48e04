"""From frames to predictions: batches of equal size, logits at the network's own stride."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from meta_ood.config import InferParams
from meta_ood.context import Machine
from meta_ood.frames import Frame
from meta_ood.loading import Batch, Sample, read
from meta_ood.predictions import Prediction
from meta_ood.transforms import to_unit_range


def predict(
    network: nn.Module,
    frames: Sequence[Frame],
    params: InferParams,
    machine: Machine,
    batch_size: int = 4,
) -> Iterator[Prediction]:
    """Yield the prediction of every frame, in their order.

    Parameters
    ----------
    network
        See :mod:`meta_ood.models`; put into eval mode on the machine's device.
    frames
        What ``prepare`` wrote.
    params
        Precision and test-time averaging.
    machine
        Device and reading threads.
    batch_size
        Neighbouring frames of one size that go through together.
    """
    device = device_of(machine)
    network = network.to(device).eval()
    align: bool = getattr(network, "align_corners", True)
    scenes = {frame.image_id: frame.scene for frame in frames}
    for batch in _batches(frames, batch_size, machine.workers):
        logits = forward(network, batch.images.to(device), params).float().cpu().numpy()
        for image_id, own, target in zip(batch.image_ids, logits, batch.targets, strict=True):
            yield Prediction(
                image_id=image_id,
                logits=own,
                size=(target.shape[0], target.shape[1]),
                align_corners=align,
                target=target.numpy(),
                scene=scenes[image_id],
            )


@torch.inference_mode()
def forward(network: nn.Module, images: Tensor, params: InferParams) -> Tensor:
    """Return the logits of ``(N, 3, H, W) uint8`` images, averaged over flips if asked for."""
    half = params.precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        pixels = to_unit_range(images).contiguous(memory_format=torch.channels_last)
        logits: Tensor = network(pixels)
        if params.flip:
            logits = (logits + network(pixels.flip(-1)).flip(-1)) / 2
    return logits


def device_of(machine: Machine) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` stands for."""
    if machine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(machine.device)


def _batches(frames: Sequence[Frame], most: int, workers: int) -> Iterator[Batch]:
    """Read ahead with threads; group neighbours of one size."""
    ahead: deque[Future[Sample]] = deque()
    group: list[Sample] = []
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader") as pool:
        try:
            upcoming = iter(frames)
            for _ in frames:
                while len(ahead) < 2 * most and (frame := next(upcoming, None)) is not None:
                    ahead.append(pool.submit(read, frame))
                sample = ahead.popleft().result()
                if group and (len(group) == most or group[0].image.shape != sample.image.shape):
                    yield Batch.of(group)
                    group = []
                group.append(sample)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if group:
        yield Batch.of(group)
