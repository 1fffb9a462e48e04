"""From frames to predictions: logits at the network's own stride."""

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.predictions import Prediction
from meta_ood.inference.batches import equal_sizes, read, read_ahead, to_unit_range
from meta_ood.inference.repetition import Members, active_dropout, check_members
from meta_ood.inference.stored_scores import Scorer
from meta_ood.inference.tiles import outputs_of, tiled_outputs
from meta_ood.models import upsample
from meta_ood.models.device import device_of, set_tf32

# how PyTorch, cuBLAS and ONNX Runtime say it; not all of them by a type of its own
_NO_MEMORY = re.compile("out of memory|not enough memory|allocate memory|ALLOC_FAILED")


def predict(
    network: nn.Module,
    frames: Sequence[Frame],
    params: InferParams,
    machine: Machine,
    statistics: Mapping[str, Tensor] | None = None,
    others: Sequence[nn.Module] = (),
) -> Iterator[Prediction]:
    """Yield the prediction of every frame that ``prepare`` wrote, in their order.

    `network` is put into eval mode on the device of `machine`, whose ``workers`` read the frames. ``params.batch_size``
    neighbouring frames of one size go through together. With one, the default, the last bits of a result do not depend
    on its neighbours, on where a run was resumed, or on the server. `statistics` are those of the training frames, for
    the scores in ``params.scores`` that need them; `others` are the networks of ``repetition.weights``.
    """
    device = device_of(machine)
    others = [other.to(device).eval() for other in others]
    check_members([network, *others], params)
    scorer = Scorer(network.to(device), params.scores, statistics).eval()
    scenes = {frame.image_id: frame.scene for frame in frames}
    most = params.batch_size
    samples = read_ahead(partial(read, label_ids=True), frames, machine.workers, ahead=2 * most)
    for batch in equal_sizes(samples, most):
        size = (batch.targets.shape[1], batch.targets.shape[2])
        logits, maps = logits_and_maps(scorer, batch.images.to(device), params, size, others)
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


def logits_and_maps(
    scorer: Scorer, images: Tensor, params: InferParams, size: tuple[int, int], others: Sequence[nn.Module] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the network's logits ``(N, C, h, w)`` and, in their order, each of ``params.scores``: ``(N, h', w')``.

    With ``params.repetition`` further passes follow: of the network itself with dropout, and of the `others`. The
    logits stay those of the network alone.

    Args:
        scorer: The network, see :class:`meta_ood.inference.stored_scores.Scorer`.
        images: ``(N, 3, H, W) uint8`` on its device.
        params: See :func:`average_logits`.
        size: (H, W) of the frame, see :meth:`Scorer.split`.
        others: Networks on the same device that :func:`meta_ood.inference.repetition.check_members` accepted.

    Raises:
        OSError: With ``errno.ENOMEM``: the images do not fit into the device's memory together.
    """
    with _enough_memory(images):
        return _logits_and_maps(scorer, images, params, size, others)


@contextmanager
def _enough_memory(images: Tensor) -> Iterator[None]:
    """Raise a lack of memory as an OSError that says what was to go through the network."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        number, _, height, width = images.shape
        what = f"a batch of {number} ({height}x{width} px) does not fit into the memory of {images.device}"
        raise OSError(errno.ENOMEM, f"{what}: {error}") from error


def _logits_and_maps(
    scorer: Scorer, images: Tensor, params: InferParams, size: tuple[int, int], others: Sequence[nn.Module]
) -> tuple[Tensor, dict[str, Tensor]]:
    """See :func:`logits_and_maps`."""
    repetition, members = params.repetition, Members()

    def run(network: nn.Module, is_member: bool) -> list[Tensor]:
        """Run a network once; each of its views, or their average, becomes a member."""
        with_views = is_member and repetition is not None and repetition.views
        outputs = average_outputs(network, images, params, members.add if with_views else None)
        if is_member and not with_views:
            members.add(outputs[0])
        return outputs

    # 1. the network as it is, a member itself where nothing is dropped
    outputs = run(scorer, repetition is not None and not repetition.dropout)
    logits, maps = scorer.split([output.float() for output in outputs], size)
    if repetition is None:
        return logits, maps
    # 2. further passes, each of which drops something else
    for network in (scorer.network, *others) if repetition.dropout else others:
        for number in range(repetition.dropout):
            with active_dropout(network, repetition.seed + number):
                run(network, is_member=True)
        if not repetition.dropout:
            run(network, is_member=True)
    found = maps | members.maps()
    return logits, {name: found[name] for name in params.scores}


def own_size(network: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Return the size [px] at which a network infers an image by itself: the image's, unless it has ``input_size``."""
    resized: Callable[[int, int], tuple[int, int]] | None = getattr(network, "input_size", None)
    return resized(height, width) if resized else (height, width)


def average_logits(network: nn.Module, images: Tensor, params: InferParams) -> Tensor:
    """Return the logits of :func:`average_outputs`."""
    return average_outputs(network, images, params)[0]


@torch.inference_mode()
def average_outputs(
    network: nn.Module, images: Tensor, params: InferParams, each: Callable[[Tensor], None] | None = None
) -> list[Tensor]:
    """Return logits ``(N, C, h, w)`` at the network's stride, averaged over scales and flips, and a scorer's maps.

    Logits are averaged, not probabilities, so that scores of logits keep their meaning. With one scale and no tiles
    they are on the network's own grid, else on one of ceil(H / stride) x ceil(W / stride); H and W are those of
    ``params.size``, or else of the network's ``input_size``, where one is given.

    Args:
        network: In eval mode, or a :class:`meta_ood.inference.stored_scores.Scorer`.
        images: ``(N, 3, H, W) uint8`` on the network's device.
        params: ``size`` (H, W) [px] to which images are resized, ``scales`` of that, ``flip`` to add the mirror image,
            ``tile`` [px] for windows.
        each: Is given the logits of each flip and scale, on the grid of the average.
    """
    height, width = params.size or own_size(network, *images.shape[2:])
    stride = int(getattr(network, "output_stride", 1))
    align: bool = getattr(network, "align_corners", True)
    grid = (-(-height // stride), -(-width // stride))
    set_tf32(params.precision, images.device)
    totals: list[Tensor] = []
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
                    outputs = tiled_outputs(network, view, params.tile, grid)
                else:
                    outputs = outputs_of(network, view)
                if flip:
                    outputs = [output.flip(-1) for output in outputs]
                # 3. all views on one grid; a single whole image stays as the network gives it
                if params.scales != (1.0,) or params.tile:
                    outputs = [upsample(output, grid, align) for output in outputs]
                if each:
                    each(outputs[0])
                totals = [a + b for a, b in zip(totals, outputs, strict=True)] if totals else outputs
    views = len(params.scales) * (2 if params.flip else 1)
    return [total / views for total in totals] if views > 1 else totals


def write_behind(
    predictions: Iterable[Prediction], write: Callable[[Prediction], None], waiting: int = 8
) -> Iterator[Prediction]:
    """Yield predictions that another thread has written; it is at most `waiting` behind. Its errors are raised."""

    def written(prediction: Prediction) -> Prediction:
        write(prediction)
        return prediction

    return read_ahead(written, predictions, workers=1, ahead=waiting)
