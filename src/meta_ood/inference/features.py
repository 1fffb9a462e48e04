"""Scores of a network's features: where features are taken, what is fitted on them, and the formulas.

The formulas take rows, one for each pixel, so that they are those of the papers; docs/method.md, section 3, has them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

Statistics = Mapping[str, Tensor]
ROWS = 2048  # pixels that are scored, or added up, together: what is made of them, 4 MB of cosines, stays in the cache
SAMPLE = 20_000  # pixels of all training frames together that are kept, for what sums cannot give
CORESET = 512  # points of the sample that nearest neighbours are looked for in
PRUNED = 0.65  # share of a pixel's activations that ASH removes, and SCALE leaves out of its ratio (pytorch-ood)
CLIPPED = 0.9  # quantile of all activations at which ReAct clips (Sun et al. 2021)
RIDGE = 1e-6  # added to a covariance, relative to its mean variance: channels may be constant
MOST_RATIO = 10.0  # of ASH and SCALE, which are made for activations >= 0, where it is at most 1 / (1 - PRUNED)


class Tap:
    """Runs a network and takes the features of the pass; changed copies of them may go through the rest of it.

    Features ``(N, F, h, w)`` are the output of the module that ``network.features`` names, or else what goes into the
    network's last convolution or linear layer.

    Attributes:
        features: Those of the last pass.
        shapings: Functions of rows ``(n, F)``; each adds N outputs to those of a pass.
    """

    def __init__(self, network: nn.Module) -> None:
        """Find the features of a network in eval mode; ValueError if it must be told a module."""
        self.network, self.features = network, torch.empty(0)
        self.shapings: list[Callable[[Tensor], Tensor]] = []
        self.last: nn.Module | None = None  # the layer that gives the logits; unknown for a named module
        if name := getattr(network, "features", ""):
            self._module = network.get_submodule(name)
            return
        # the layer that runs last is found by running all
        order: list[nn.Module] = []
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
        hooks = [layer.register_forward_hook(lambda module, _, __: order.append(module)) for layer in layers]
        device = next(network.parameters()).device
        with torch.inference_mode():
            network(torch.zeros(1, 3, 128, 256, device=device))
        for hook in hooks:
            hook.remove()
        if not order or isinstance(order[-1], nn.Linear) or hasattr(network, "no_object"):
            raise ValueError(
                f"{type(network).__name__}: its last layer does not take a feature map; name the module whose output "
                f"is one in options.features, as one of {', '.join(n for n, _ in network.named_children())}"
            )
        self._module = self.last = order[-1]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of a pass: of the features, and of each shaping; images are ``(N, 3, H, W)``."""
        if self.last is not None:
            hook = self.last.register_forward_pre_hook(lambda _, inputs: (self._take(inputs[0]),))
        else:
            hook = self._module.register_forward_hook(lambda _, __, output: self._take(output))
        number, found = len(image), torch.empty(0)
        try:
            found = self.network(image)
        except RuntimeError as error:
            if not self.shapings or "must match" not in str(error):
                raise
        finally:
            hook.remove()
        if len(found) != (1 + len(self.shapings)) * number:
            raise ValueError(
                "options.features: the layers after this module do not let changed features through alone; "
                "react, ash and scale need one nearer to the logits, or none, which is the input of the last layer"
            )
        return list(torch.split(found, number))

    def _take(self, features: Tensor) -> Tensor:
        if not isinstance(features, Tensor) or features.ndim != 4:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"options.features: expected a module that gives (N, F, h, w), got {got}")
        self.features = features
        # a copy, as layers may change it in place
        return torch.cat([features, *(by_rows(shape, features) for shape in self.shapings)])

    def origin(self, classes: int, mean: Tensor) -> Tensor:
        """Return where ViM measures from: the point of zero logits (least squares), or else the features' mean."""
        last = self.last
        if not isinstance(last, nn.Conv2d | nn.ConvTranspose2d) or last.groups > 1:
            return mean
        # output channel first; the kernel's places: of a transposed convolution each gives logits, of another their sum
        weight, bias = last.weight.detach().double(), last.bias
        if isinstance(last, nn.ConvTranspose2d):
            rows = weight.permute(1, 2, 3, 0)[:classes].flatten(0, 2)
        else:
            rows = weight.sum((2, 3))[:classes]
        if bias is None:
            return torch.zeros_like(mean)
        logits = bias.detach().double()[:classes].repeat_interleave(len(rows) // classes)
        origin: Tensor = -torch.linalg.pinv(rows) @ logits
        return origin.to(mean)


def by_rows(call: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Apply a function of rows ``(n, F) float32``, to ``(n, F')``, to ``(N, F, h, w)``: ``(N, F', h, w)``."""
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    # autocast would round products, and so differences of distances, to 8 bits
    with torch.autocast(features.device.type, enabled=False):
        found = torch.cat([call(part.float()) for part in torch.split(rows, ROWS)])
    return found.view(features.shape[0], *features.shape[2:], -1).permute(0, 3, 1, 2)


def distances(names: Sequence[str], features: Tensor, fitted: Statistics) -> Tensor:
    """Return those of :data:`DISTANCES` of features ``(N, F, h, w)``, a channel each: ``(N, len(names), h, w)``."""
    return by_rows(lambda rows: torch.stack([DISTANCES[name](rows, fitted) for name in names], 1), features)


# --- formulas --------------------------------------------------------------------------------


def mahalanobis(x: Tensor, fitted: Statistics) -> Tensor:
    """Return min over the classes of (x - m_c)' S^-1 (x - m_c), S the covariance within classes (Lee et al. 2018)."""
    whitening = fitted["class_whitening"]
    means = (fitted["class_means"] - fitted["centre"]) @ whitening
    y = (x - fitted["centre"]) @ whitening
    # differences, not |y|^2 - 2 y m + |m|^2, which cancel
    distances: Tensor = torch.cdist(y, means, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.amin(1) ** 2


def relative_mahalanobis(x: Tensor, fitted: Statistics) -> Tensor:
    """Return :func:`mahalanobis` less the distance to the mean of all pixels by their covariance (Ren et al. 2021)."""
    return mahalanobis(x, fitted) - ((x - fitted["centre"]) @ fitted["whitening"]).square().sum(1)


def knn(x: Tensor, fitted: Statistics) -> Tensor:
    """Return the distance to the nearest point of the coreset, all of length 1 (Sun et al. 2022; Roth et al. 2022)."""
    nearest = (normalize(x) @ fitted["coreset"].T).amax(1)
    return (2 - 2 * nearest).clamp(min=0).sqrt()


def prototype_cosine(x: Tensor, fitted: Statistics) -> Tensor:
    """Return minus the largest cosine to the mean features of a class: [-1, 1]."""
    return -(normalize(x) @ normalize(fitted["class_means"]).T).amax(1)


def virtual_logit(x: Tensor, fitted: Statistics) -> Tensor:
    """Return alpha times the length of x - o outside the principal space: ViM without its energy."""
    outside: Tensor = (x - fitted["origin"]) @ fitted["residual"]
    return outside.square().sum(1).sqrt() * fitted["alpha"]


def react(x: Tensor, fitted: Statistics) -> Tensor:
    """Return activations, none above the quantile :data:`CLIPPED` of the training pixels'."""
    return x.minimum(fitted["clip"])


def _pruned(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of which only the largest activations are left, and exp of the sum of all over theirs."""
    left = x.shape[1] - round(x.shape[1] * PRUNED)
    values, places = x.topk(left, 1)
    kept = torch.zeros_like(x).scatter_(1, places, values)
    total = values.sum(1, keepdim=True)
    ratio = torch.where(total > 0, x.sum(1, keepdim=True) / total.clamp(min=1e-12), torch.ones_like(total))
    return kept, ratio.clamp(-MOST_RATIO, MOST_RATIO).exp()


def ash(x: Tensor, fitted: Statistics) -> Tensor:
    """Return activations pruned and scaled: ASH-S (Djurisic et al. 2023), each pixel by itself."""
    kept, factor = _pruned(x)
    return kept * factor


def scale(x: Tensor, fitted: Statistics) -> Tensor:
    """Return activations scaled by the factor of ASH-S, not pruned: SCALE (Xu et al. 2024), each pixel by itself."""
    return x * _pruned(x)[1]


Formula = Callable[[Tensor, Statistics], Tensor]

DISTANCES: dict[str, Formula] = {
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
    "knn": knn,
    "prototype_cosine": prototype_cosine,
    "vim": virtual_logit,
}
"""Score -> function from rows ``(n, F)`` to ``(n,)``; ViM also needs the logits."""

SHAPINGS: dict[str, Formula] = {"react": react, "ash": ash, "scale": scale}
"""Score -> function from rows ``(n, F)`` to rows that go through the rest of the network; the score is their energy."""


def with_statistics(formula: Formula, fitted: Statistics) -> Callable[[Tensor], Tensor]:
    """Return a formula as a function of rows alone."""
    return lambda rows: formula(rows, fitted)


# --- fitting ---------------------------------------------------------------------------------


class FeatureSums:
    """Sums over training pixels, in float64, and a sample of them; their memory does not depend on the frames."""

    def __init__(self, classes: int, frames: int, seed: int = 0) -> None:
        """Start from nothing; `frames` follow, of each of which `seed` draws some pixels."""
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.seed, self._most, self._each, self._frames = seed, frames, -(-SAMPLE // max(frames, 1)), 0
        self._shift = self._sums = self._products = self._sample = torch.empty(0)
        self._sampled = 0  # rows of the sample that are filled

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a frame: features ``(F, h, w)``, labels ``(h, w) int64``; labels that are no class are left out."""
        rows, labels = features.flatten(1).T, labels.flatten()
        classes, width = len(self.counts), rows.shape[1]
        known = torch.nonzero(labels < classes)[:, 0]
        if not len(known):
            return
        if not self._frames:
            # near the mean, so that squares do not cancel
            self._shift = rows[known[:ROWS]].double().mean(0)
            self._sums = torch.zeros(classes, width, dtype=torch.float64, device=rows.device)
            self._products = torch.zeros(width, width, dtype=torch.float64, device=rows.device)
            # at once: small pieces that stay between large ones that go would tear memory apart
            self._sample = torch.zeros(self._most * self._each, width)
        for part in torch.split(known, ROWS):
            x = rows[part].double() - self._shift
            self._sums.index_add_(0, labels[part], x)
            self._products += x.T @ x
        self.counts += torch.bincount(labels[known], minlength=classes).cpu()
        chosen = np.random.default_rng((self.seed, self._frames)).permutation(len(known))[: self._each]
        found = rows[known[torch.from_numpy(chosen).to(known.device)]]
        self._sample[self._sampled : self._sampled + len(found)] = found
        self._sampled += len(found)
        self._frames += 1

    def state(self) -> dict[str, Tensor]:
        """Return what :meth:`restore` goes on from."""
        parts = {"counts": self.counts, "shift": self._shift, "sums": self._sums, "products": self._products}
        return parts | {"sample": self._sample, "sampled": torch.tensor([self._frames, self._sampled])}

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from a :meth:`state`, with features on `device`."""
        self.counts, self._sample = state["counts"], state["sample"]
        self._shift, self._sums, self._products = (state[name].to(device) for name in ("shift", "sums", "products"))
        self._frames, self._sampled = state["sampled"].tolist()

    def result(self, tap: Tap, mean_max_logit: Tensor) -> dict[str, Tensor]:
        """Return what the formulas need; `mean_max_logit` is the largest logit's mean over the training pixels."""
        counts, sums, products, shift = self.counts, self._sums.cpu(), self._products.cpu(), self._shift.cpu()
        number, seen, sample = counts.sum(), counts > 0, self._sample[: self._sampled]
        # 1. means, and the covariances around them, out of the sums around the shift
        means = sums[seen] / counts[seen, None]
        mean = sums.sum(0) / number
        within = (products - (means * counts[seen, None]).T @ means) / number
        total = products / number - torch.outer(mean, mean)
        centre = mean + shift
        # 2. ViM: the directions of least variance around the origin, and the scale that makes their length a logit
        origin = tap.origin(len(counts), centre)
        away = centre - origin
        values, vectors = torch.linalg.eigh(total + torch.outer(away, away))
        residual = vectors[:, : len(values) - len(values) // 2]
        lengths = [((rows.double() - origin) @ residual).norm(dim=1) for rows in torch.split(sample, ROWS)]
        alpha = mean_max_logit / torch.cat(lengths).mean().clamp(min=1e-12)
        found = {
            "centre": centre,
            "class_means": means + shift,
            "class_whitening": _whitening(within),
            "whitening": _whitening(total),
            "origin": origin,
            "residual": residual,
            "alpha": alpha,
            "clip": torch.tensor(float(np.quantile(sample.numpy(), CLIPPED))),
            "coreset": k_centres(normalize(sample), CORESET),
        }
        return {name: value.float() for name, value in found.items()}


def _whitening(covariance: Tensor) -> Tensor:
    """Return W with W W' the inverse of a covariance, which is made regular by :data:`RIDGE`."""
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-30)
    values, vectors = torch.linalg.eigh(covariance)
    whitening: Tensor = vectors * (values.clamp(min=0) + ridge).rsqrt()
    return whitening


def k_centres(points: Tensor, number: int) -> Tensor:
    """Return a coreset ``(number, F)`` of points ``(n, F)``: each the farthest from those before, from the first on."""
    chosen = [0]
    nearest = (points - points[0]).norm(dim=1)
    for _ in range(min(number, len(points)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = nearest.minimum((points - points[chosen[-1]]).norm(dim=1))
    return points[chosen]
