"""Uncertainty from repetition: the spread of a pixel's softmax over several passes, its *members*.

Formulas are in docs/method.md, section 3.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from meta_ood.config import InferParams
from meta_ood.scores.maps import entropy_scale

_WHOLE_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Members:
    """Sums over the softmax of members; their memory does not depend on how many there are."""

    def __init__(self) -> None:
        """Start from nothing."""
        self.count = 0
        self._p = self._squares = self._entropy = torch.zeros(())

    def add(self, logits: Tensor) -> None:
        """Add a member's logits ``(N, C, h, w)``."""
        log_p = logits.float().log_softmax(1)
        p = log_p.exp()
        self.count += 1
        # not in place: what was made in inference mode may not be changed outside of it
        self._p = p + self._p.to(p)
        self._squares = p.square().sum(1) + self._squares.to(p)
        self._entropy = self._entropy.to(p) - (p * log_p).sum(1)

    def maps(self) -> dict[str, Tensor]:
        """Return score -> ``(N, h, w)``; entropies are over ln C."""
        mean, scale = self._p / self.count, entropy_scale(self._p.shape[1])
        predictive = -torch.xlogy(mean, mean).sum(1) * scale
        expected = self._entropy * (scale / self.count)
        return {
            "predictive_entropy": predictive,
            "expected_entropy": expected,
            # neither can be negative, but for rounding
            "mutual_information": (predictive - expected).clamp(min=0),
            "predictive_variance": (self._squares / self.count - mean.square().sum(1)).clamp(min=0),
        }


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """Return the dropout layers that drop anything."""
    kinds = (nn.Dropout, *_WHOLE_CHANNELS)
    return [layer for layer in network.modules() if isinstance(layer, kinds) and 0 < layer.p < 1]


@contextmanager
def active_dropout(network: nn.Module, seed: int) -> Iterator[None]:
    """Let the dropout layers of a network in eval mode drop, as they do in training.

    What is dropped depends on `seed` and the sizes alone: it is drawn on the CPU, whatever the device.
    """
    generator = torch.Generator().manual_seed(seed)

    def drop(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        whole = isinstance(layer, _WHOLE_CHANNELS)
        shape = (*output.shape[:2], *[1] * (output.ndim - 2)) if whole else tuple(output.shape)
        probability = float(layer.p)  # type: ignore[arg-type]
        kept = torch.rand(shape, generator=generator) >= probability
        return output * (kept / (1 - probability)).to(output)

    hooks = [layer.register_forward_hook(drop) for layer in dropout_layers(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_members(networks: Sequence[nn.Module], params: InferParams) -> None:
    """Refuse networks, the detector's own and the others of an ensemble, that cannot do what `params` ask for.

    Raises:
        ValueError: One has no dropout layer, or there are not as many as ``repetition.weights`` names.
    """
    repetition = params.repetition
    expected = 1 + len(repetition.weights) if repetition else 1
    if len(networks) != expected:
        raise ValueError(f"infer.repetition.weights: expected {expected - 1} more networks, got {len(networks) - 1}")
    for network in networks if repetition and repetition.dropout else ():
        if not dropout_layers(network):
            raise ValueError(
                f"infer.repetition.dropout: {type(network).__name__} has no dropout layer that drops anything; "
                "use weights or views, or a network with dropout"
            )
