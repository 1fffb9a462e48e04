"""Scores that need more than the stored logits: they are computed on the network's device, beside the logits.

Formulas are in docs/method.md, section 3. Higher means more out-of-distribution.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from meta_ood.inference.features import DISTANCES, SHAPINGS, Tap, distances, with_statistics
from meta_ood.models import upsample
from meta_ood.scores import CLASSES, FEATURES, MASKS, REPEATED, SCORES

SUPPRESSION = 4  # [px] width of the suppressed borders between predicted classes, and number of steps inwards
KERNEL, DILATION, SIGMA = 7, 6, 1.0  # of the Gaussian that smooths; all four as published (Jung et al. 2021)
STRIP = 16  # rows of logits whose energy is computed together: they stay in the cache
_CROSS = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])


def sources(names: Iterable[str]) -> set[str]:
    """Return what the scores of these names are computed from, see :attr:`meta_ood.scores.Score.source`."""
    return {SCORES[name].source for name in names}


def kl_to_prior(logits: Tensor, prior: Tensor) -> Tensor:
    """Return -KL(softmax | prior) of logits ``(N, C, h, w)`` and a prior ``(C,)``: ``(N, h, w)``, at most 0."""
    log_p = logits.log_softmax(1)
    return (log_p.exp() * (prior.log()[:, None, None] - log_p)).sum(1)


def rba(logits: Tensor) -> Tensor:
    """Return -sum tanh of the class masses, whose logarithms are the logits ``(N, C, h, w)``: ``(N, h, w)``."""
    return -logits.exp().tanh().sum(1)


def smoothed_standardised_max_logit(logits: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the negated standardised max logit with borders suppressed, smoothed: ``(N, H, W)``.

    Args:
        logits: ``(N, C, H, W)`` at the size of the image, as the widths are in its pixels.
        mean, deviation: ``(C,)`` of the largest logit over training pixels with this predicted class.
    """
    largest, classes = logits.max(1)
    score = (mean[classes] - largest) / deviation[classes]
    return smooth(suppress_borders(score, classes))


def suppress_borders(score: Tensor, classes: Tensor) -> Tensor:
    """Replace scores at borders between predicted classes by those around, from outside in: ``(N, H, W)``.

    In each step the pixels within a distance of a border (in steps to the four neighbours; it shrinks to 0) get the
    mean of those of their 3x3 pixels that lie farther away, if there are any.
    """
    values, labels = score[:, None], classes[:, None].to(score.dtype)
    # 1. borders: the largest class of the four neighbours is not the smallest of the eight; the image's edge is none
    framed = pad(labels, (1, 1, 1, 1), value=-1.0)
    moves = [(0, 1), (2, 1), (1, 0), (1, 2), (1, 1)]
    height, width = labels.shape[2:]
    highest = torch.stack([framed[:, :, y : y + height, x : x + width] for y, x in moves]).amax(0)
    border = (highest != -max_pool2d(-labels, 3, 1, 1)).to(score.dtype)
    # 2. the widths: 3, 2, 1, 0
    widths = [border]
    for _ in range(SUPPRESSION - 1):
        widths.append((conv2d(widths[-1], _CROSS.to(border)[None, None], padding=1) > 0).to(border.dtype))
    for near in reversed(widths):
        far = 1 - near
        total, count = (9 * avg_pool2d(pad(v, (1, 1, 1, 1), mode="replicate"), 3, 1) for v in (values * far, far))
        values = torch.where((near > 0) & (count > 0.5), total / count.clamp(min=1), values)
    return values[:, 0]


def smooth(score: Tensor) -> Tensor:
    """Return ``(N, H, W)`` scores, smoothed by a dilated Gaussian; beyond the image its edge is repeated."""
    offsets = torch.arange(KERNEL, dtype=score.dtype, device=score.device) - (KERNEL - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    reach = DILATION * (KERNEL // 2)
    values = pad(score[:, None], (reach,) * 4, mode="replicate")
    # the Gaussian is a product: rows, then columns
    values = conv2d(values, weights.view(1, 1, -1, 1), dilation=(DILATION, 1))
    return conv2d(values, weights.view(1, 1, 1, -1), dilation=(1, DILATION))[:, 0]


def energy(logits: Tensor) -> Tensor:
    """Return -ln sum exp of logits ``(N, C, h, w)``: ``(N, 1, h, w)``."""
    return torch.cat([-strip.logsumexp(1, keepdim=True) for strip in torch.split(logits, STRIP, 2)], 2)


class Scorer(nn.Module):
    """A network that also gives what the scores of `names` need: further maps beside the logits.

    Flips, scales and tiles average them as they average logits; :meth:`split` makes the scores of the result. It has
    the attributes of a network.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Iterable[str] = (),
        statistics: Mapping[str, Tensor] | None = None,
        tap: Tap | None = None,
    ) -> None:
        """Check that the network and the statistics of :mod:`meta_ood.inference.statistics` have what `names` need.

        `tap` takes the features of each pass, also where no score needs them.

        Raises:
            ValueError: If they lack something; it is named.
        """
        super().__init__()
        # those of repeated passes are computed around this one
        self.network, self.names = network, tuple(name for name in names if SCORES[name].source != REPEATED)
        self.align_corners: bool = getattr(network, "align_corners", True)
        self.output_stride = int(getattr(network, "output_stride", 1))
        device = next((parameter.device for parameter in network.parameters()), None)
        self._statistics = {name: value.float().to(device) for name, value in (statistics or {}).items()}
        needed = sources(self.names)
        for source, name in ((CLASSES, "prior"), (FEATURES, "class_means")):
            if source in needed and name not in self._statistics:
                raise ValueError(
                    f"infer.scores: {self._of(source)}: statistics of training frames are missing, which "
                    "`meta-ood statistics --network NAME --variant VARIANT` makes"
                )
        if MASKS in needed and not isinstance(getattr(network, "no_object", None), nn.Module):
            raise ValueError(
                f"infer.scores: {self._of(MASKS)} needs a mask model (Mask2Former, EoMT, …); "
                f"{type(network).__name__} gives a logit for each class at each pixel"
            )
        self.input_size = getattr(network, "input_size", None)
        # a further map for each of these
        self._channels = [name for name in self.names if name == "no_object" or SCORES[name].source == FEATURES]
        self.tap = Tap(network.eval()) if FEATURES in needed else tap
        self._shaped = [name for name in self._channels if name in SHAPINGS]
        self._distances = [name for name in self._channels if name in DISTANCES]
        if self.tap:
            self.tap.shapings = [with_statistics(SHAPINGS[name], self._statistics) for name in self._shaped]

    def _of(self, source: str) -> str:
        return ", ".join(name for name in self.names if SCORES[name].source == source)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, h, w)`` and, if scores need any, maps ``(N, …, h, w)``."""
        found: dict[str, Tensor] = {}
        hook = None
        if "no_object" in self.names:
            masks = self.network.get_submodule("no_object")
            hook = masks.register_forward_hook(lambda _, __, mass: found.update(no_object=mass))
        # 1. the network, with features shaped in several ways, whose score is the energy
        logits, *others = self.tap(image) if self.tap else [self.network(image)]
        if hook:
            hook.remove()
        found |= {name: energy(own) for name, own in zip(self._shaped, others, strict=True)}
        if not self._channels:
            return (logits,)
        # 2. distances of features
        size = logits.shape[2:]
        if self.tap and self._distances:
            values = distances(self._distances, self.tap.features, self._statistics)
            values = upsample(values, size, self.align_corners)
            found |= {name: values[:, place : place + 1] for place, name in enumerate(self._distances)}
        if "vim" in found:
            found["vim"] = found["vim"] + energy(logits)
        # not in one tensor with the logits, which are many times as large
        return logits, torch.cat([upsample(found[name], size, self.align_corners) for name in self._channels], 1)

    def split(self, outputs: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits ``(N, C, h, w)`` and score -> ``(N, h', w')`` of (averaged) outputs.

        `size` is (H, W) of the image, at which scores are computed whose formula has a width in pixels.
        """
        logits, fitted = outputs[0], self._statistics
        maps = {}
        for name in self.names:
            if name in self._channels:
                maps[name] = outputs[1][:, self._channels.index(name)]
            elif name == "rba":
                maps[name] = rba(logits)
            elif name == "kl_to_prior":
                maps[name] = kl_to_prior(logits, fitted["prior"])
            else:
                full = upsample(logits, size, self.align_corners)
                maps[name] = smoothed_standardised_max_logit(full, fitted["mean"], fitted["deviation"])
        return logits, maps
