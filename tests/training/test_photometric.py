"""Photometric changes against a slow statement of them on floats."""

import numpy as np
import pytest
import torch

from meta_ood.training.photometric import photometric


def picture() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    return torch.stack([rows * 5 + 20, columns * 3 + 30, 220 - rows * 2 - columns]).to(torch.uint8)


def slow(image: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Return the changes other than blur and noise, one after the other, in float64."""
    draws = strength * np.random.default_rng(seed).standard_normal(7)
    x = (image / 255.0) ** np.exp(0.25 * draws[0])
    x = (x - x.mean()) * np.exp(0.2 * draws[1]) + x.mean() + 0.06 * draws[3]
    x = np.stack([x[channel] * np.exp(0.08 * draws[4 + channel]) for channel in range(3)])
    grey = (x[0] + x[1] + x[2]) / 3
    return (grey + (x - grey) * np.exp(0.3 * draws[2])).clip(0, 1) * 255


def blurs_or_noises(strength: float, seed: int) -> tuple[bool, bool]:
    generator = np.random.default_rng(seed)
    generator.standard_normal(7)
    uniform = generator.random(4)
    return bool(uniform[0] < 0.4 * strength), bool(uniform[2] < 0.4 * strength)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_pointwise_changes(strength: float):
    image, compared = picture(), 0
    for seed in range(40):
        found = photometric(image, strength, np.random.default_rng(seed))
        assert found.dtype == torch.uint8
        assert found.shape == image.shape
        if not any(blurs_or_noises(strength, seed)):
            assert np.abs(found.numpy() - slow(image.numpy(), strength, seed)).max() <= 0.51
            compared += 1
    assert compared > 5


def test_blur_and_noise():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, :, 30:] = 200
    steps: dict[tuple[bool, bool], list[float]] = {}
    for seed in range(60):
        found = photometric(image, 1.0, np.random.default_rng(seed)).float()
        edge = (found[:, :, 30] - found[:, :, 29]).mean().item()
        far = (found[:, :, 50] - found[:, :, 5]).mean().item()
        steps.setdefault(blurs_or_noises(1.0, seed), []).append(edge / far)
        if not blurs_or_noises(1.0, seed)[1]:
            assert found[0, :, 40:].std() == 0
    assert np.mean(steps[True, False]) < 0.8 < 0.99 < np.mean(steps[False, False])
    assert len(steps) == 4


def test_the_same_draws_give_the_same_and_none_change_the_image_given():
    image = picture()
    kept = image.clone()
    first, again, other = (photometric(image, 1.0, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(image, kept)
    assert torch.equal(photometric(image, 0.0, np.random.default_rng(0)), image)
