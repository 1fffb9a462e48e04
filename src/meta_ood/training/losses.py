"""Training losses: what a network learns at in-distribution and at OoD pixels.

Every loss has the signature ``loss(logits, target, ood_weight, counts=None, class_weights=None, soft=None,
**options)``, for logits ``(N, C, H, W)`` and targets ``(N, H, W) uint8``, returns a scalar, and gives void pixels
neither cost nor gradient. ``counts`` are the pixels that a mean runs over: by default those of `target`; in training
those of the whole batch, of which `target` may be the share of one process, so that shares add up. ``class_weights``,
``(C,)``, are factors of the cross entropy at the known pixels of each class; what the sum is divided by stays the same.
``soft`` are targets that a teacher gives: see :class:`SoftTargets`.

The cross entropies compute loss and gradient by hand, in :class:`_WeightedCrossEntropy`. Autograd would keep several
tensors of the logits' size and pass over each of them in main memory. By hand it is one pass over pieces that stay in
the cache, and the gradient is the only large tensor: a quarter of the time and a third of the memory of dense targets
(``benchmarks/training.py loss``). The tests compare it with autograd, finite differences and the published code.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from meta_ood.config import TrainParams
from meta_ood.data.labels import IN, OOD
from meta_ood.data.registry import lookup

_CHUNK = 1 << 14  # [px] on the CPU: a piece of C x 2^14 floats stays in the cache


@dataclass(frozen=True)
class PixelCounts:
    """Numbers of pixels that a mean runs over: all, those with a train id, OoD ones, and IN ones."""

    pixels: float
    inside: float
    ood: float
    unlabelled: float = 0.0


@dataclass(frozen=True)
class SoftTargets:
    r"""The softmax q of a teacher, here the network before OoD training (Hinton et al., arXiv 1503.02531).

    In-distribution pixels without class (IN) cost :math:`KL(q \,\|\, p)` with the weight that others have for their
    cross entropy; besides, ``weight`` times the same divergence is added at each in-distribution pixel.
    """

    logits: Tensor  # the teacher's, of the shape of the network's
    weight: float


# objective(logits, target, counts, done) -> loss; `done` in [0, 1] is the share of the training that is done. With a
# teacher its logits are the fifth argument.
Objective = Callable[..., Tensor]


def count(target: Tensor, num_classes: int) -> PixelCounts:
    """Count the pixels of a uint8 target, encoded as in :mod:`meta_ood.data.labels`.

    Examples:
        >>> count(torch.tensor([0, 18, 254, 255], dtype=torch.uint8), 19)
        PixelCounts(pixels=4, inside=2, ood=1, unlabelled=0)
    """
    inside = int((target < num_classes).sum())
    return PixelCounts(target.numel(), inside, int((target == OOD).sum()), int((target == IN).sum()))


def entropy_maximization(
    logits: Tensor,
    target: Tensor,
    ood_weight: float,
    counts: PixelCounts | None = None,
    class_weights: Tensor | None = None,
    soft: SoftTargets | None = None,
    normalisation: str = "published",
) -> Tensor:
    r"""Cross entropy at known pixels, cross entropy to the uniform distribution at OoD pixels.

    .. math:: L = \frac{1}{Z} \Big[(1-\lambda) \sum_{x\,in} -\log p_{y(x)}(x)
              + \frac{\lambda}{C} \sum_{x\,OoD} \sum_c -\log p_c(x)\Big]

    (docs/method.md, section 2; Chan, Rottmann & Gottschalk, ICCV 2021, eq. 2-4.)

    Args:
        logits, target, counts, class_weights, soft: See the module's text.
        ood_weight: λ in [0, 1].
        normalisation: ``published``: Z = C · all pixels, void ones included. ``pixels``: Z = pixels with a train id or
            OoD, so that the loss is C times as large or more and does not fall with void.

    Returns:
        Scalar of the logits' dtype (float32 for 16 bit logits); 0 if nothing counts.
    """
    num_classes = logits.shape[1]
    counts = counts or count(target, num_classes)
    if normalisation == "published":
        total = counts.pixels * num_classes
    elif normalisation == "pixels":
        total = counts.inside + counts.ood
    else:
        raise ValueError(f"unknown normalisation {normalisation!r}; known: pixels, published")
    total = max(total, 1)
    return _weighted(logits, target, (1 - ood_weight) / total, ood_weight / total, class_weights, soft)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    ood_weight: float = 0.0,
    counts: PixelCounts | None = None,
    class_weights: Tensor | None = None,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Mean cross entropy over the pixels with a train id; OoD pixels count as void."""
    counts = counts or count(target, logits.shape[1])
    return _weighted(logits, target, 1 / max(counts.inside, 1), 0.0, class_weights, soft)


def outlier_exposure(
    logits: Tensor,
    target: Tensor,
    ood_weight: float,
    counts: PixelCounts | None = None,
    class_weights: Tensor | None = None,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Mean cross entropy at known pixels plus λ times the mean cross entropy to uniform at OoD.

    The form of Hendrycks, Mazeika & Dietterich (ICLR 2019): each mean runs over its own pixels, and the first term
    keeps its weight whatever λ is.
    """
    counts = counts or count(target, logits.shape[1])
    return _weighted(logits, target, 1 / max(counts.inside, 1), ood_weight / max(counts.ood, 1), class_weights, soft)


def energy_hinge(
    logits: Tensor,
    target: Tensor,
    ood_weight: float,
    counts: PixelCounts | None = None,
    class_weights: Tensor | None = None,
    soft: SoftTargets | None = None,
    margin_in: float = -12.0,
    margin_ood: float = -6.0,
) -> Tensor:
    """Mean cross entropy plus λ times squared hinges on the energy E = -log sum_c exp z_c.

    Known pixels with an energy above `margin_in` and OoD pixels with one below `margin_ood` cost the square of the
    excess, each averaged over its own pixels (Liu et al., NeurIPS 2020, eq. 8).
    """
    counts = counts or count(target, logits.shape[1])
    energy = -torch.logsumexp(logits.float() if logits.dtype.itemsize < 4 else logits, 1)
    zero = energy.new_zeros(())
    known = torch.where(target < logits.shape[1], (energy - margin_in).clamp(min=0) ** 2, zero)
    unknown = torch.where(target == OOD, (margin_ood - energy).clamp(min=0) ** 2, zero)
    hinges = known.sum() / max(counts.inside, 1) + unknown.sum() / max(counts.ood, 1)
    return cross_entropy(logits, target, 0.0, counts, class_weights, soft) + ood_weight * hinges


def unknown_class(
    logits: Tensor,
    target: Tensor,
    ood_weight: float,
    counts: PixelCounts | None = None,
    class_weights: Tensor | None = None,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Cross entropy with one more class, "unknown", for OoD pixels: a common baseline.

    A shift of all logits does not change the softmax, so that the further class may have the fixed logit 0: its
    probability is 1 / (1 + sum_c exp z_c), the score ``energy`` orders pixels as it does, and the network keeps its C
    outputs. Known pixels have the weight 1-λ, OoD ones λ; the mean runs over both.
    """
    num_classes = logits.shape[1]
    counts = counts or count(target, num_classes)
    extended = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)  # (N, C+1, H, W)
    weights = torch.zeros(256, dtype=_accumulator(logits), device=logits.device)
    weights[:num_classes] = (1 - ood_weight) * (1.0 if class_weights is None else class_weights.to(weights))
    weights[OOD] = ood_weight
    labels = target.long()
    log_p = torch.log_softmax(extended, 1, dtype=_accumulator(logits))
    own = torch.where(labels < num_classes, labels, num_classes)
    cost = -log_p.gather(1, own[:, None])[:, 0] * weights[labels]
    total = max(counts.inside + counts.ood, 1)
    loss = cost.sum() / total
    if soft is not None:  # over the C classes, the hard targets without weight
        loss = loss + _weighted(logits, target, (1 - ood_weight) / total, 0.0, weights.new_zeros(num_classes), soft)
    return loss


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "entropy_maximization": entropy_maximization,
    "outlier_exposure": outlier_exposure,
    "energy_hinge": energy_hinge,
    "unknown_class": unknown_class,
    "cross_entropy": cross_entropy,
}
"""Name in params.yaml -> loss. ``cross_entropy`` ignores proxies: the effect of more training alone."""


def balanced(pixels: Tensor, power: float) -> Tensor:
    r"""Return the weight ``(C,) float32`` of each class: larger for rarer classes.

    .. math:: w_c = \left( \frac{v_c}{\sum_k f_k v_k} \right)^{power}, \qquad v_c = \frac{1}{\ln(1.02 + f_c)}

    (Paszke et al., ENet, arXiv 1606.02147, section 5.2.) Before the power, their mean over all pixels is 1.

    Args:
        pixels: ``(C,)``, the number of pixels of each class in the training frames; f are their shares.
        power: 0 gives 1 for every class, 1 ENet's weights.
    """
    shares = torch.nan_to_num(pixels.double() / pixels.sum(), nan=1 / len(pixels))  # no labels: all alike
    weights = 1 / torch.log(1.02 + shares)
    return ((weights / (weights * shares).sum()) ** power).float()


def ood_objective(params: TrainParams, class_weights: Tensor | None = None) -> Objective:
    """Return the chosen loss, with a λ that may rise from 0 (``ood_weight_ramp``); ValueError for an unknown option."""
    loss = lookup("loss", LOSSES, params.loss)
    known = set(inspect.signature(loss).parameters) - {*inspect.signature(cross_entropy).parameters}
    if unknown := sorted(set(params.loss_options) - known):
        names = ", ".join(sorted(known)) or "none"
        raise ValueError(f"train.loss_options: {', '.join(unknown)} unknown to {params.loss}; known: {names}")

    def objective(
        logits: Tensor, target: Tensor, counts: PixelCounts, done: float, teacher: Tensor | None = None
    ) -> Tensor:
        risen = min(1.0, done / params.ood_weight_ramp) if params.ood_weight_ramp else 1.0
        soft = None
        if teacher is not None:  # then pixels without class are learned from, too
            counts = replace(counts, inside=counts.inside + counts.unlabelled)
            soft = SoftTargets(teacher, params.distillation / max(counts.inside, 1))
        options = {"counts": counts, "class_weights": class_weights, "soft": soft, **params.loss_options}
        return loss(logits, target, params.ood_weight * risen, **options)

    return objective


def _accumulator(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _weighted(
    logits: Tensor, target: Tensor, inside: float, ood: float, class_weights: Tensor | None, soft: SoftTargets | None
) -> Tensor:
    """Return the sum of `inside` · w_y · (-log p_y) at known pixels and of `ood` · (-mean_c log p_c) at OoD pixels.

    With `soft`, also that of ``soft.weight`` · KL(q || p) at known and IN pixels, and of `inside` · KL at IN pixels.
    """
    if logits.shape[0] != target.shape[0] or logits.shape[2:] != target.shape[1:]:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not belong together")
    if class_weights is not None:
        class_weights = class_weights.to(logits.device, _accumulator(logits))
    total: Tensor = _WeightedCrossEntropy.apply(logits, target, inside, ood, class_weights, soft)
    return total


class _WeightedCrossEntropy(torch.autograd.Function):
    """Closed form of loss and gradient in one pass, piece by piece so that it stays in the cache.

    With the log-sum-exp l of the logits z, p the softmax: a known pixel costs l - z_y and has the gradient p - [c = y],
    an OoD pixel l - mean z and p - 1/C, one with soft targets q the sum of q (log q - z) + l and p - q.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        inside: float,
        ood: float,
        class_weights: Tensor | None,
        soft: SoftTargets | None,
    ) -> Tensor:
        """Compute the loss, and its gradient at once where one is wanted."""
        wanted = ctx.needs_input_grad[0]
        # channels-last stays as it is: each piece is then a transposed view
        if not logits.is_contiguous(memory_format=torch.channels_last):
            logits = logits.contiguous()
        gradient = torch.empty_like(logits) if wanted else None
        total = torch.zeros((), dtype=_accumulator(logits), device=logits.device)
        size = _CHUNK if logits.device.type == "cpu" else target.numel()
        for image in range(len(logits)):
            z, t = logits[image].flatten(1), target[image].flatten()  # (C, HW), (HW,)
            g = None if gradient is None else gradient[image].flatten(1)
            u = None if soft is None else soft.logits[image].flatten(1)
            for start in range(0, t.numel(), size):
                part = slice(start, start + size)
                taught = None if soft is None or u is None else SoftTargets(u[:, part], soft.weight)
                own = None if g is None else g[:, part]
                total += _piece(z[:, part], t[part], inside, ood, class_weights, taught, own)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Scale the gradient that the forward pass left."""
        (gradient,) = ctx.saved_tensors
        # looking at the value is free on a CPU only; there the copy of the gradient is saved
        if upstream.device.type == "cpu" and float(upstream) == 1.0:
            return gradient, None, None, None, None, None
        return gradient * upstream.to(gradient.dtype), None, None, None, None, None


def _piece(
    z: Tensor,
    t: Tensor,
    inside: float,
    ood: float,
    class_weights: Tensor | None,
    soft: SoftTargets | None,
    gradient: Tensor | None,
) -> Tensor:
    """Return the cost of (C, P) logits at (P,) targets; fill (C, P) `gradient` if there is one."""
    classes = len(z)
    z = z.to(_accumulator(z))
    # 1. softmax and log-sum-exp; the maximum is subtracted so that nothing overflows
    known = t < classes
    own = torch.where(known, t, 0).long()[None]  # (1, P)
    peak = z.amax(0)
    p = torch.sub(z, peak).exp_()  # (C, P)
    sums = p.sum(0)
    lse = sums.log().add_(peak)
    # 2. the cost: lse - z_y at known pixels, lse - mean z at OoD pixels
    weight = known.to(z.dtype).mul_(inside)
    if class_weights is not None:
        weight.mul_(class_weights[own[0]])
    total = torch.dot(weight, lse - z.gather(0, own)[0])
    uniform = None
    if ood:
        uniform = (t == OOD).to(z.dtype).mul_(ood)
        total = total + torch.dot(uniform, lse - z.mean(0))
    # 3. the divergence from soft targets q: l + sum of q (log q - z)
    if soft is not None:
        unlabelled = t == IN
        taught = (known | unlabelled).to(z.dtype).mul_(soft.weight).add_(unlabelled, alpha=inside)
        log_q = torch.log_softmax(soft.logits.to(z.dtype), 0)
        q = log_q.exp()
        total = total + torch.dot(taught, lse + (q * (log_q - z)).sum(0))
    # 4. the gradient, in the memory of p: p - [c = y], p - 1/C, p - q, each times the pixel's weight
    if gradient is not None:
        scale = weight if uniform is None else weight + uniform
        if soft is not None:
            scale = scale + taught
        p.mul_(scale / sums)
        p.scatter_add_(0, own, -weight[None])
        if uniform is not None:
            p.sub_(uniform.div_(classes))
        if soft is not None:
            p.sub_(q.mul_(taught))
        gradient.copy_(p)
    return total
