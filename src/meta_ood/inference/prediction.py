"""From frames to predictions: logits at the network's own stride."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.predictions import Prediction
from meta_ood.inference.batches import equal_sizes, read, read_ahead, to_unit_range
from meta_ood.inference.tiles import tiled_logits
from meta_ood.models import upsample
from meta_ood.models.device import device_of, set_tf32


def predict(network: nn.Module, frames: Sequence[Frame], params: InferParams, machine: Machine) -> Iterator[Prediction]:
    """Yield the prediction of every frame, in their order.

    Args:
        network: A network of :mod:`meta_ood.models`; it is put into eval mode on the machine's device.
        frames: Frames that ``prepare`` wrote.
        params: Precision, averaging over flip and scales, tiles; how many neighbouring frames of one size go through
            together. With one, the default, the last bits of a result do not depend on its neighbours, on where a run
            was resumed, or on the server.
        machine: Device and number of reading threads.
    """
    device = device_of(machine)
    network = network.to(device).eval()
    align: bool = getattr(network, "align_corners", True)
    scenes = {frame.image_id: frame.scene for frame in frames}
    most = params.batch_size
    samples = read_ahead(partial(read, label_ids=True), frames, machine.workers, ahead=2 * most)
    for batch in equal_sizes(samples, most):
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
        params: ``scales`` of the image, ``flip`` to add its mirror image, ``tile`` [px] for windows.

    Returns:
        ``(N, C, h, w)``: with one scale and no tiles the network's output, else on a grid of ceil(H / stride) x ceil(W
        / stride).
    """
    height, width = images.shape[2:]
    stride = int(getattr(network, "output_stride", 1))
    align: bool = getattr(network, "align_corners", True)
    grid = (-(-height // stride), -(-width // stride))
    half = params.precision == "bfloat16"
    set_tf32(params.precision, images.device)
    total, views = None, 0
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        for scale in params.scales:
            # 1. the image at this scale
            pixels = to_unit_range(images)
            if scale != 1:
                size = (round(height * scale), round(width * scale))
                pixels = interpolate(pixels, size, mode="bilinear", antialias=scale < 1)
            for flip in (False, True) if params.flip else (False,):
                # 2. the network, in windows if the image is larger than a tile
                view = pixels.flip(-1) if flip else pixels
                view = view.contiguous(memory_format=torch.channels_last)
                if params.tile and max(view.shape[2:]) > params.tile:
                    logits = tiled_logits(network, view, params.tile, grid)
                else:
                    logits = network(view)
                logits = logits.flip(-1) if flip else logits
                # 3. all views on one grid; a single whole image stays as the network gives it
                if params.scales != (1.0,) or params.tile:
                    logits = upsample(logits, grid, align)
                total = logits if total is None else total + logits
                views += 1
    assert total is not None
    return total / views


def write_behind(
    predictions: Iterable[Prediction], write: Callable[[Prediction], None], waiting: int = 8
) -> Iterator[Prediction]:
    """Yield predictions while another thread writes them; at most `waiting` are unwritten.

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
