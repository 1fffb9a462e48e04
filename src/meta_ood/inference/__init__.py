"""From frames to predictions: batches of equal size, logits at the network's own stride."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.predictions import Prediction
from meta_ood.inference.batches import Batch, Sample, read, to_unit_range
from meta_ood.models.device import device_of, set_tf32


def predict(network: nn.Module, frames: Sequence[Frame], params: InferParams, machine: Machine) -> Iterator[Prediction]:
    """Yield the prediction of every frame, in their order.

    Args:
        network: See :mod:`meta_ood.models`; put into eval mode on the machine's device.
        frames: What ``prepare`` wrote.
        params: Precision, averaging over flip and scales, tiles; how many neighbouring frames of one size go through
            together. With one, the default, the last bits of a result do not depend on its neighbours, on where a run
            was resumed, or on the server.
        machine: Device and reading threads.
    """
    device = device_of(machine)
    network = network.to(device).eval()
    align: bool = getattr(network, "align_corners", True)
    scenes = {frame.image_id: frame.scene for frame in frames}
    for batch in _batches(frames, params.batch_size, machine.workers):
        logits = average_logits(network, batch.images.to(device), params)
        for image_id, own, target, label_ids in zip(
            batch.image_ids, logits.float().cpu().numpy(), batch.targets, batch.label_ids, strict=True
        ):
            yield Prediction(
                image_id=image_id,
                logits=own,
                size=(target.shape[0], target.shape[1]),
                align_corners=align,
                target=target.numpy(),
                scene=scenes[image_id],
                label_ids=None if label_ids is None else label_ids.numpy(),
            )


@torch.inference_mode()
def average_logits(network: nn.Module, images: Tensor, params: InferParams) -> Tensor:
    """Return logits at the network's stride, averaged over scales and flips.

    Logits are averaged, not probabilities, so that scores of logits keep their meaning.

    Args:
        network: In eval mode.
        images: ``(N, 3, H, W) uint8`` on the network's device.
        params: ``scales`` of the image, ``flip`` for its mirror image too, ``tile`` [px] for windows.

    Returns:
        ``(N, C, h, w)``: with one scale and no tiles just what the network gives, else on a grid of ceil(H / stride) ×
        ceil(W / stride).
    """
    height, width = images.shape[2:]
    stride = int(getattr(network, "output_stride", 1))
    align: bool = getattr(network, "align_corners", True)
    grid = (-(-height // stride), -(-width // stride))
    half = params.precision == "bfloat16"
    set_tf32(params.precision, images.device)
    total, parts = None, 0
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        for scale in params.scales:
            pixels = to_unit_range(images)
            if scale != 1:
                size = (round(height * scale), round(width * scale))
                pixels = interpolate(pixels, size, mode="bilinear", antialias=scale < 1)
            for flip in (False, True) if params.flip else (False,):
                seen = pixels.flip(-1) if flip else pixels
                seen = seen.contiguous(memory_format=torch.channels_last)
                if params.tile and max(seen.shape[2:]) > params.tile:
                    logits = tiled_logits(network, seen, params.tile, grid)
                else:
                    logits = network(seen)
                logits = logits.flip(-1) if flip else logits
                if (params.scales != (1.0,) or params.tile) and logits.shape[2:] != grid:
                    logits = interpolate(logits, grid, mode="bilinear", align_corners=align)
                total = logits if total is None else total + logits
                parts += 1
    assert total is not None
    return total / parts


def tiled_logits(network: nn.Module, pixels: Tensor, tile: int, grid: tuple[int, int]) -> Tensor:
    """Run a network over overlapping windows and blend its logits on one grid.

    Each point of the grid takes the bilinear values of the windows around it, weighted by its distance from their
    borders. Windows overlap by a quarter at least.

    Args:
        network: In eval mode.
        pixels: ``(N, 3, H, W)`` in [0, 1].
        tile: Side of a window [px].
        grid: ``(h, w)`` of the result, spread over the image as ``align_corners`` says.

    Returns:
        ``(N, C, h, w) float32``.
    """
    align: bool = getattr(network, "align_corners", True)
    device = pixels.device
    rows, columns = (
        _positions(size, points, align).to(device) for size, points in zip(pixels.shape[2:], grid, strict=True)
    )
    total: Tensor | None = None
    weights = torch.zeros(grid, device=device)
    for top, bottom in _windows(pixels.shape[2], tile):
        for left, right in _windows(pixels.shape[3], tile):
            logits = network(pixels[:, :, top:bottom, left:right]).float()
            inside = [
                torch.nonzero((where >= low - 0.5) & (where < high - 0.5))[:, 0]
                for where, low, high in ((rows, top, bottom), (columns, left, right))
            ]
            if not len(inside[0]) or not len(inside[1]):
                continue
            y, wy = _within(rows[inside[0]], top, bottom, align)
            x, wx = _within(columns[inside[1]], left, right, align)
            points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (h', w', 2)
            points = points.expand(len(logits), -1, -1, -1)
            values = grid_sample(logits, points, padding_mode="border", align_corners=align)
            weight = wy[:, None] * wx
            if total is None:
                total = logits.new_zeros(len(logits), logits.shape[1], *grid)
            where = (inside[0][:, None], inside[1])
            total[:, :, where[0], where[1]] += values * weight
            weights[where] += weight
    assert total is not None
    return total / weights


def _positions(size: int, points: int, align: bool) -> Tensor:
    """Return where the points of a grid lie along an axis [px], pixel centres being integers."""
    if align:
        return torch.linspace(0, size - 1, points)
    return (torch.arange(points) + 0.5) * (size / points) - 0.5


def _windows(size: int, tile: int) -> list[tuple[int, int]]:
    """Cover an axis with windows that overlap by a quarter or more.

    Examples:
        >>> _windows(100, 64)
        [(0, 64), (36, 100)]
    """
    if size <= tile:
        return [(0, size)]
    number = 1 + -(-(size - tile) * 4 // (tile * 3))
    starts = [round(i * (size - tile) / (number - 1)) for i in range(number)]
    return [(start, start + tile) for start in starts]


def _within(where: Tensor, low: int, high: int, align: bool) -> tuple[Tensor, Tensor]:
    """Return positions in a window in [-1, 1] as grid_sample takes them, and blending weights."""
    size = high - low
    own = where - low
    place = own * (2 / max(size - 1, 1)) - 1 if align else (2 * own + 1) / size - 1
    weight = torch.minimum(own + 1, size - own).clamp(min=0.5)
    return place, weight


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """Give (rank, number of processes) of torchrun, (0, 1) without; wait for all at the end."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        yield 0, 1
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield torch.distributed.get_rank(), number
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def write_behind(
    predictions: Iterable[Prediction], write: Callable[[Prediction], None], waiting: int = 8
) -> Iterator[Prediction]:
    """Pass predictions on while another thread writes them; at most `waiting` are unwritten.

    Raises:
        Exception: What `write` raised, at the next prediction or at the end.
    """
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="writer") as pool:
        for prediction in predictions:
            pending.append(pool.submit(write, prediction))
            while len(pending) > waiting or (pending and pending[0].done()):
                pending.popleft().result()
            yield prediction
        for written in pending:
            written.result()


def _batches(frames: Sequence[Frame], most: int, workers: int) -> Iterator[Batch]:
    """Read ahead with threads; group neighbours of one size."""
    ahead: deque[Future[Sample]] = deque()
    group: list[Sample] = []
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader") as pool:
        try:
            upcoming = iter(frames)
            for _ in frames:
                while len(ahead) < 2 * most and (frame := next(upcoming, None)) is not None:
                    ahead.append(pool.submit(read, frame, label_ids=True))
                sample = ahead.popleft().result()
                if group and (len(group) == most or group[0].image.shape != sample.image.shape):
                    yield Batch.of(group)
                    group = []
                group.append(sample)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if group:
        yield Batch.of(group)
