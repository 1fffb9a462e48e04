"""Scores of several passes against direct statements from the single passes' softmax."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meta_ood.config import InferParams
from meta_ood.config.schema import REPEATED_SCORES, RepetitionParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.images import read_image
from meta_ood.data.predictions import Prediction
from meta_ood.inference import average_logits, predict
from meta_ood.inference.repetition import Members, active_dropout
from meta_ood.scores import SCORES
from training_run import write_frames

CLASSES = 5
CPU = Machine("cpu", 1)


class Net(nn.Module):
    """A convolution, dropout of values and of whole channels, and a layer of logits."""

    align_corners = False
    output_stride = 1

    def __init__(self, seed: int = 0, dropout: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout(dropout), nn.Dropout2d(dropout, inplace=True)),
            nn.Conv2d(8, CLASSES, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return 5 * self.layers(image)


def direct(passes: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The four scores of logits ``(C, h, w)``, in float64."""
    p = [np.exp(x - x.max(0)) / np.exp(x - x.max(0)).sum(0) for x in np.asarray(passes, np.float64)]
    mean = np.mean(p, axis=0)
    entropies = [-(x * np.log(x)).sum(0) / np.log(CLASSES) for x in p]
    predictive = -(mean * np.log(mean)).sum(0) / np.log(CLASSES)
    # as a mean divergence from the mean softmax, not as a difference of entropies
    information = np.mean([(x * np.log(x / mean)).sum(0) for x in p], axis=0) / np.log(CLASSES)
    return {
        "predictive_entropy": predictive,
        "expected_entropy": np.mean(entropies, axis=0),
        "mutual_information": information,
        "predictive_variance": np.var(p, axis=0).sum(0),
    }


def params(flip: bool = False, scales: tuple[float, ...] = (1.0,), **repetition: object) -> InferParams:
    return InferParams(scores=REPEATED_SCORES, flip=flip, scales=scales, repetition=RepetitionParams(**repetition))


def check(one: Prediction, passes: list[np.ndarray]) -> None:
    assert tuple(one.stored) == REPEATED_SCORES
    for name, values in direct(passes).items():
        np.testing.assert_allclose(one.stored[name], values, rtol=0, atol=1e-5, err_msg=name)
    assert one.stored["mutual_information"].min() >= 0


def pixels_of(frame: Frame) -> Tensor:
    return torch.from_numpy(read_image(frame.image)).permute(2, 0, 1)[None]


def test_running_sums_are_the_formulas() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        passes = list((4 * rng.standard_normal((1 + seed % 7, CLASSES, 3, 4))).astype(np.float32))
        members = Members()
        for logits in passes:
            members.add(torch.from_numpy(logits[None]))
        maps = {name: values[0].numpy() for name, values in members.maps().items()}
        check(Prediction("x", passes[0], (3, 4), True, np.zeros((3, 4), np.uint8), stored=maps), passes)


def test_one_member_is_the_plain_prediction() -> None:
    logits = np.random.default_rng(0).standard_normal((CLASSES, 6, 7)).astype(np.float32)
    members = Members()
    members.add(torch.from_numpy(logits[None]))
    maps = {name: values[0].numpy() for name, values in members.maps().items()}
    plain = SCORES["entropy"](Prediction("x", logits, (6, 7), True, np.zeros((6, 7), np.uint8)))
    np.testing.assert_allclose(maps["predictive_entropy"], plain, atol=1e-6)
    np.testing.assert_allclose(maps["expected_entropy"], plain, atol=1e-6)
    assert maps["mutual_information"].max() < 1e-6
    assert maps["predictive_variance"].max() < 1e-6


def test_flips_and_scales_are_members(tmp_path: Path) -> None:
    frames, net = write_frames(tmp_path, 3, 0), Net()
    chosen = params(flip=True, scales=(1.0, 1.5), views=True)
    for one, frame in zip(predict(net, frames, chosen, CPU), frames, strict=True):
        image = pixels_of(frame) / 255
        views = []
        for scale in (1.0, 1.5):
            size = [round(side * scale) for side in (24, 32)]
            pixels = nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
            for flip in (False, True):
                with torch.inference_mode():
                    logits = net(pixels.flip(-1) if flip else pixels)
                logits = logits.flip(-1) if flip else logits
                views.append(nn.functional.interpolate(logits, (24, 32), mode="bilinear")[0].numpy())
        check(one, views)
        np.testing.assert_allclose(one.logits, np.mean(views, axis=0), atol=1e-5)


def test_an_ensemble_s_networks_are_members_and_logits_those_of_the_first(tmp_path: Path) -> None:
    frames, nets = write_frames(tmp_path, 3, 0), [Net(seed).eval() for seed in range(3)]
    found = predict(nets[0], frames, params(weights=("a", "b")), CPU, others=nets[1:])
    for one, pixels in zip(found, map(pixels_of, frames), strict=True):
        passes = [average_logits(net, pixels, InferParams())[0].numpy() for net in nets]
        check(one, passes)
        np.testing.assert_allclose(one.logits, passes[0], atol=1e-5)


def test_dropout_is_drawn_by_the_seed_alone(tmp_path: Path) -> None:
    frames, nets = write_frames(tmp_path, 3, 0), [Net(0), Net(1)]
    chosen = params(dropout=4, seed=7, weights=("a",))
    found = list(predict(nets[0], frames, chosen, CPU, others=nets[1:]))
    plain = next(predict(nets[0], frames, InferParams(), CPU))
    np.testing.assert_array_equal(found[0].logits, plain.logits)  # nothing is dropped for them
    # 1. members: four passes of each network; what is dropped is alike in all frames
    for one, pixels in zip(found, map(pixels_of, frames), strict=True):
        passes = []
        for net in nets:
            for seed in range(7, 11):
                with active_dropout(net, seed):
                    passes.append(average_logits(net, pixels, InferParams())[0].numpy())
        check(one, passes)
    # 2. same seed, same bytes, whatever was drawn elsewhere and wherever a run begins; another seed, other ones
    torch.rand(5)
    again = next(predict(nets[0], frames[2:], chosen, CPU, others=nets[1:]))
    other = next(predict(nets[0], frames[2:], params(dropout=4, seed=8, weights=("a",)), CPU, others=nets[1:]))
    for name in REPEATED_SCORES:
        assert again.stored[name].tobytes() == found[2].stored[name].tobytes()
        assert not np.array_equal(other.stored[name], again.stored[name])


def test_dropout_drops_as_in_training() -> None:
    """Values alone or whole channels, the others divided by what is kept; the mean over many draws is the input."""
    ones, counts = torch.ones(1, 400, 4, 5), []
    for layer, size in ((nn.Dropout(0.3), 8000), (nn.Dropout2d(0.3), 400)):
        net = nn.Sequential(layer).eval()
        with active_dropout(net, 0):
            found = net(ones)
        assert torch.equal(net(ones), ones)  # not beyond the context
        channels = found.flatten(2)
        assert bool((channels == channels[:, :, :1]).all()) == (size == 400)
        assert found.unique().tolist() == pytest.approx([0, 1 / 0.7])
        counts.append(float((found > 0).float().mean()))
    assert counts == pytest.approx([0.7, 0.7], abs=0.07)


@pytest.mark.parametrize("dropout", [0.0, None])
def test_a_network_without_dropout_is_refused(tmp_path: Path, dropout: float | None) -> None:
    net = nn.Conv2d(3, CLASSES, 1) if dropout is None else Net(dropout=dropout)
    with pytest.raises(ValueError, match=r"infer\.repetition\.dropout: \w+ has no dropout layer that drops anything"):
        next(predict(net, write_frames(tmp_path, 3, 0), params(dropout=3), CPU))
    with pytest.raises(ValueError, match=r"infer\.repetition\.weights: expected 1 more networks, got 0"):
        next(predict(net, write_frames(tmp_path, 3, 0), params(weights=("a",)), CPU))
