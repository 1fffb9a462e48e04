from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.inference import predict
from meta_ood.inference import statistics as fitting_module
from meta_ood.inference.statistics import Fitting, fit, read_statistics, write_statistics
from meta_ood.inference.stored_scores import (
    Scorer,
    kl_to_prior,
    rba,
    smooth,
    smoothed_standardised_max_logit,
    suppress_borders,
)

CPU = Machine("cpu", 1)


def test_rba_is_the_published_formula() -> None:
    """Equation 3 of Nayal et al. 2023, one query, class and pixel after the other; ours gets the logarithms."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        queries, classes, pixels = rng.integers(1, 9, 3)
        p = rng.dirichlet(np.ones(classes + 1), queries)
        masks = 1 / (1 + np.exp(-3 * rng.standard_normal((queries, pixels))))
        mass = np.zeros((classes, pixels))
        expected = np.zeros(pixels)
        for x in range(pixels):
            for k in range(classes):
                mass[k, x] = sum(p[n, k] * masks[n, x] for n in range(queries))
                expected[x] -= np.tanh(mass[k, x])
        found = rba(torch.from_numpy(np.log(mass)[None, :, None].astype(np.float32)))[0, 0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_kl_is_a_sum_over_the_classes() -> None:
    rng = np.random.default_rng(0)
    logits, prior = 3 * rng.standard_normal((2, 5, 3, 4)), rng.dirichlet(np.ones(5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -sum(p[:, c] * np.log(p[:, c] / prior[c]) for c in range(5))
    np.testing.assert_allclose(kl_to_prior(torch.from_numpy(logits), torch.from_numpy(prior)), expected, atol=1e-12)


def by_hand(score: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Boundary suppression and dilated smoothing (Jung et al. 2021, sections 3.3, 3.4), pixel by pixel."""
    height, width = score.shape

    def around(y: int, x: int, reach: int = 1):
        for v in range(y - reach, y + reach + 1):
            for u in range(x - reach, x + reach + 1):
                yield v, u

    def inside(v: int, u: int) -> bool:
        return 0 <= v < height and 0 <= u < width

    border = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            eight = [classes[v, u] for v, u in around(y, x) if inside(v, u)]
            four = [classes[v, u] for v, u in around(y, x) if inside(v, u) and abs(v - y) + abs(u - x) < 2]
            border[y, x] = max(four) != min(eight)
    for width_now in (3, 2, 1, 0):
        near = np.zeros_like(border)
        for y, x in np.argwhere(border):
            for v, u in around(y, x, width_now):
                if inside(v, u) and abs(v - y) + abs(u - x) <= width_now:
                    near[v, u] = True
        before = score.copy()
        for y, x in np.argwhere(near):
            places = [(min(max(v, 0), height - 1), min(max(u, 0), width - 1)) for v, u in around(y, x)]
            values = [before[place] for place in places if not near[place]]
            score[y, x] = np.mean(values) if values else before[y, x]
    kernel = np.array([[np.exp(-(a * a + b * b) / 2) for b in range(-3, 4)] for a in range(-3, 4)])
    smoothed = np.zeros_like(score)
    for y in range(height):
        for x in range(width):
            for a in range(-3, 4):
                for b in range(-3, 4):
                    v, u = min(max(y + 6 * a, 0), height - 1), min(max(x + 6 * b, 0), width - 1)
                    smoothed[y, x] += kernel[a + 3, b + 3] * score[v, u]
    return smoothed / kernel.sum()


def test_the_smoothed_standardised_max_logit_is_that_of_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.standard_normal((4, 4, 5)).repeat(6, 1).repeat(7, 2)
    logits = 2 * blocks + 0.2 * rng.standard_normal(blocks.shape)
    mean, deviation = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    classes = logits.argmax(0)
    expected = by_hand(-(logits.max(0) - mean[classes]) / deviation[classes], classes)
    found = smoothed_standardised_max_logit(*(torch.from_numpy(v) for v in (logits[None], mean, deviation)))
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-10)
    flat = torch.full((1, 5, 9), 3.0)
    torch.testing.assert_close(smooth(suppress_borders(flat, torch.zeros(1, 5, 9))), flat)


def test_statistics_are_those_of_all_pixels_at_once() -> None:
    rng = np.random.default_rng(0)
    logits = (50 + rng.standard_normal((6, 4, 5, 7))).astype(np.float32)
    target = rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), (6, 5, 7))
    fitting = Fitting(4)
    for first, last in ((0, 1), (1, 4), (4, 6)):
        fitting.add(torch.from_numpy(logits[first:last]), torch.from_numpy(target[first:last]))
    found = fitting.result()
    known, largest, predicted = target < 4, logits.max(1).astype(np.float64), logits.argmax(1)
    for c in range(4):
        values = largest[known & (predicted == c)]
        np.testing.assert_allclose([found["mean"][c], found["deviation"][c]], [values.mean(), values.std()], rtol=1e-9)
        assert found["prior"][c] == pytest.approx(((target == c).sum() + 1) / (known.sum() + 4))


class MaskModel(nn.Module):
    """Logits and a no-object mass that depend on place and colour."""

    align_corners = False
    output_stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.no_object = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        place = torch.linspace(0, 1, image.shape[3]).expand(len(image), 1, image.shape[2], -1)
        self.no_object(place + image[:, :1])
        return (image * place).clamp_min(1e-6).log()


def write_frames(folder: Path) -> list[Frame]:
    frames = []
    for number in range(3):
        frame = Frame(f"f{number}", folder / f"{number}.png", "", folder / f"{number}_t.png", "s")
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(frame.image)
        Image.fromarray(rng.choice(np.array([0, 1, 2, 255], np.uint8), (8, 12))).save(frame.target)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("flip", [False, True])
def test_maps_of_a_mask_model_lie_beside_its_logits(tmp_path: Path, flip: bool) -> None:
    names = ("no_object", "rba", "kl_to_prior", "smoothed_standardised_max_logit")
    frames = write_frames(tmp_path)
    params = InferParams(scores=names, flip=flip, batch_size=2)
    statistics = fit(MaskModel(), frames, params, CPU, 3)
    write_statistics(tmp_path / "s.safetensors", statistics)
    statistics = read_statistics(tmp_path / "s.safetensors")
    plain = list(predict(MaskModel(), frames, InferParams(flip=flip, batch_size=2), CPU))
    place = np.linspace(0, 1, 12)
    for one, bare in zip(predict(MaskModel(), frames, params, CPU, statistics), plain, strict=True):
        np.testing.assert_array_equal(one.logits, bare.logits)
        assert tuple(one.stored) == names
        assert not bare.stored
        image = np.asarray(Image.open(tmp_path / f"{one.image_id[1:]}.png"))[:, :, 0] / 255
        expected = image + (0.5 if flip else place)  # of both views the mean
        np.testing.assert_allclose(one.stored["no_object"], expected, atol=1e-6)
        np.testing.assert_allclose(one.stored["rba"], -np.tanh(np.exp(one.logits)).sum(0), atol=1e-6)


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three frames is the last that is kept; the third is read again, the others are not."""

    class Net(nn.Conv2d):
        calls = 0

        def forward(self, image: Tensor) -> Tensor:
            Net.calls += 1
            if Net.calls == limit:
                raise KeyboardInterrupt
            return super().forward(image)

    monkeypatch.setattr(fitting_module, "SAVED_EVERY", 1)
    frames, params = write_frames(tmp_path), InferParams(scores=("kl_to_prior", "knn"))
    torch.manual_seed(0)
    net, limit, state = Net(3, 4, 1), 0, tmp_path / "resume" / "state.safetensors"
    write_statistics(tmp_path / "whole", fit(net, frames, params, CPU, 4))
    Net.calls, limit = 0, 4  # a call to find the last layer, and one for each frame
    with pytest.raises(KeyboardInterrupt):
        fit(net, frames, params, CPU, 4, state=state)
    Net.calls, limit = 0, 0
    write_statistics(tmp_path / "resumed", fit(net, frames, params, CPU, 4, state=state))
    assert Net.calls == 2
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_a_score_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"infer.scores: rba, no_object needs a mask model .* Identity gives"):
        Scorer(nn.Identity(), ["rba", "no_object"])
    with pytest.raises(ValueError, match=r"infer.scores: kl_to_prior: statistics .* `meta-ood statistics -"):
        Scorer(nn.Identity(), ["kl_to_prior"])
