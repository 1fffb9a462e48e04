"""From frames to predictions: logits at the network's own stride."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.predictions import Prediction
from meta_ood.inference.batches import equal_sizes, read, read_ahead, to_unit_range
from meta_ood.inference.stored_scores import Scorer
from meta_ood.inference.tiles import tiled_logits
from meta_ood.models import upsample
from meta_ood.models.device import device_of, set_tf32


def predict(
    network: nn.Module,
    frames: Sequence[Frame],
    params: InferParams,
    machine: Machine,
    statistics: Mapping[str, Tensor] | None = None,
) -> Iterator[Prediction]:
    """Yield the prediction of every frame that ``prepare`` wrote, in their order.

    `network` is put into eval mode on the device of `machine`, whose ``workers`` read the frames. ``params.batch_size``
    neighbouring frames of one size go through together. With one, the default, the last bits of a result do not depend
    on its neighbours, on where a run was resumed, or on the server. `statistics` are those of the training frames, for
    the scores in ``params.scores`` that need them.
    """
    device = device_of(machine)
    scorer = Scorer(network.to(device), params.scores, statistics).eval()
    scenes = {frame.image_id: frame.scene for frame in frames}
    most = params.batch_size
    samples = read_ahead(partial(read, label_ids=True), frames, machine.workers, ahead=2 * most)
    for batch in equal_sizes(samples, most):
        size = (batch.targets.shape[1], batch.targets.shape[2])
        logits, maps = scorer.split(average_logits(scorer, batch.images.to(device), params).float(), size)
        rows = zip(batch.image_ids, logits.cpu().numpy(), batch.targets.numpy(), batch.label_ids, strict=True)
        stored = {name: values.cpu().numpy() for name, values in maps.items()}
        for place, (image_id, own, target, label_ids) in enumerate(rows):
            yield Prediction(
                image_id,
                own,
                size,
                scorer.align_corners,
                target,
                scene=scenes[image_id],
                label_ids=label_ids,
                stored={name: values[place] for name, values in stored.items()},
            )


def own_size(network: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Return the size [px] at which a network infers an image by itself: the image's, unless it has ``input_size``."""
    resized: Callable[[int, int], tuple[int, int]] | None = getattr(network, "input_size", None)
    return resized(height, width) if resized else (height, width)


@torch.inference_mode()
def average_logits(network: nn.Module, images: Tensor, params: InferParams) -> Tensor:
    """Return logits ``(N, C, h, w)`` at the network's stride, averaged over scales and flips.

    Logits are averaged, not probabilities, so that scores of logits keep their meaning. With one scale and no tiles
    they are on the network's own grid, else on one of ceil(H / stride) x ceil(W / stride); H and W are those of
    ``params.size``, or else of the network's ``input_size``, where one is given.

    Args:
        network: In eval mode.
        images: ``(N, 3, H, W) uint8`` on the network's device.
        params: ``size`` (H, W) [px] to which images are resized, ``scales`` of that, ``flip`` to add the mirror image,
            ``tile`` [px] for windows.
    """
    height, width = params.size or own_size(network, *images.shape[2:])
    stride = int(getattr(network, "output_stride", 1))
    align: bool = getattr(network, "align_corners", True)
    grid = (-(-height // stride), -(-width // stride))
    set_tf32(params.precision, images.device)
    total = torch.zeros((), device=images.device)  # without dimensions: its sums have the shape and type of logits
    with torch.autocast(images.device.type, torch.bfloat16, enabled=params.precision == "bfloat16"):
        for scale in params.scales:
            # 1. the image at this scale
            pixels = to_unit_range(images)
            size = (round(height * scale), round(width * scale))
            if size != pixels.shape[2:]:
                pixels = interpolate(pixels, size, mode="bilinear", antialias=True)  # no effect where pixels get more
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
                total = total + logits
    return total / (len(params.scales) * (2 if params.flip else 1))


def write_behind(
    predictions: Iterable[Prediction], write: Callable[[Prediction], None], waiting: int = 8
) -> Iterator[Prediction]:
    """Yield predictions that another thread has written; it is at most `waiting` behind. Its errors are raised."""

    def written(prediction: Prediction) -> Prediction:
        write(prediction)
        return prediction

    return read_ahead(written, predictions, workers=1, ahead=waiting)
