"""Losses against the published code's figures, one-hot formulations in float64 and gradcheck."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from meta_ood import config
from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.training.losses import (
    LOSSES,
    PixelCounts,
    SoftTargets,
    balanced,
    count,
    cross_entropy,
    energy_hinge,
    entropy_maximization,
    ood_objective,
    outlier_exposure,
    unknown_class,
)

REFERENCE = Path(__file__).parents[1] / "reference"
PARAMS = Path(__file__).parents[2] / "params.yaml"
CASES = sorted(REFERENCE.glob("g2_loss_*.npz"))


def loss_and_gradient(loss, logits: np.ndarray, target: np.ndarray, *args, **options) -> tuple[float, np.ndarray]:
    z = torch.tensor(logits, requires_grad=True)
    value = loss(z, torch.tensor(target), *args, **options)
    value.backward()
    assert z.grad is not None
    return float(value.detach()), z.grad.numpy()


def one_hot_loss(logits: np.ndarray, target: np.ndarray, weight: float) -> float:
    """Return the objective as it is written in the paper, with dense targets, in float64."""
    classes = logits.shape[1]
    z = logits.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    dense = np.zeros_like(z)
    for label in range(classes):
        dense[:, label][target == label] = 1 - weight
    for label in range(classes):
        dense[:, label][target == OOD] = weight / classes
    return float(-(dense * log_p).mean())


def test_there_are_seven_cases():
    assert len(CASES) == 7


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("weight", [0, 0.5, 0.9, 1])
def test_published_figures(path: Path, weight: float):
    case = np.load(path, allow_pickle=False)
    logits, target = case["logits"], case["target"]
    # The published code rounds both weights to float32; the loss is linear in them.
    inside = loss_and_gradient(entropy_maximization, logits, target, 0.0)
    outside = loss_and_gradient(entropy_maximization, logits, target, 1.0)
    first = float(np.float32(1 - weight))
    second = float(np.float32(weight / logits.shape[1])) * logits.shape[1]
    gradient = case[f"grad_a{weight}_f64"]
    scale = max(np.abs(gradient).max(), 1e-300)
    np.testing.assert_allclose(first * inside[0] + second * outside[0], case[f"loss_a{weight}_f64"], rtol=1e-12)
    assert np.abs(first * inside[1] + second * outside[1] - gradient).max() <= 1e-12 * scale

    value, own = loss_and_gradient(entropy_maximization, logits.astype(np.float32), target, weight)
    gradient = case[f"grad_a{weight}_f32"]
    np.testing.assert_allclose(value, case[f"loss_a{weight}_f32"], rtol=1e-6)
    assert np.abs(own - gradient).max() <= 1e-6 * max(np.abs(gradient).max(), 1e-300)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("weight", [0, 0.5, 0.9, 1])
def test_closed_form_in_float64(path: Path, weight: float):
    case = np.load(path, allow_pickle=False)
    logits, target = case["logits"], case["target"]
    value, gradient = loss_and_gradient(entropy_maximization, logits, target, weight)
    np.testing.assert_allclose(value, one_hot_loss(logits, target, weight), rtol=1e-12)
    classes = logits.shape[1]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = np.zeros_like(p)
    for label in range(classes):
        at = np.broadcast_to((target == label)[:, None], p.shape)
        one = np.arange(classes)[None, :, None, None] == label
        expected = np.where(at, (1 - weight) * (p - one), expected)
    expected = np.where((target == OOD)[:, None], weight * (p - 1 / classes), expected)
    expected /= target.size * classes
    assert np.abs(gradient - expected).max() <= 1e-12 * max(np.abs(expected).max(), 1e-300)


def some_pixels(seed: int = 0, shape=(2, 5, 9, 11)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    values = torch.tensor([0, 1, 2, 3, 4, NEUTRAL, IN, OOD, IGNORE], dtype=torch.uint8)
    where = torch.randint(0, len(values), (shape[0], *shape[2:]), generator=generator)
    return logits, values[where]


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str):
    logits, target = some_pixels(shape=(1, 5, 4, 5))
    options = {"margin_in": -4.0, "margin_ood": -2.0} if name == "energy_hinge" else {}
    torch.autograd.gradcheck(lambda z: LOSSES[name](z, target, 0.3, **options) * 2, logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_void_has_no_gradient_and_a_void_batch_no_cost(name: str):
    logits, target = some_pixels()
    logits.requires_grad_()
    LOSSES[name](logits, target, 0.5).backward()
    assert logits.grad is not None
    void = (target == IGNORE) | (target == IN) | (target == NEUTRAL)
    moved = logits.grad.abs().sum(1)
    assert (moved[void] == 0).all()
    assert (moved[target < 5] > 0).all()
    empty = LOSSES[name](logits, torch.full_like(target, IGNORE), 0.5)
    empty.backward()
    assert float(empty.detach()) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_parts_add_up(name: str):
    logits, target = some_pixels()
    counts = count(target, 5)
    whole = LOSSES[name](logits, target, 0.5)
    parts = [LOSSES[name](logits[i : i + 1], target[i : i + 1], 0.5, counts) for i in (0, 1)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "bfloat16"])
def test_memory_layout_and_precision_do_not_matter(name: str, layout: str, monkeypatch):
    monkeypatch.setattr("meta_ood.training.losses._CHUNK", 17)
    logits, target = some_pixels()
    logits = logits.to(torch.bfloat16).double()
    expected = loss_and_gradient(LOSSES[name], logits.numpy(), target.numpy(), 0.7)
    other = {
        "channels_last": logits.clone(memory_format=torch.channels_last),
        "transposed": logits.transpose(2, 3).contiguous().transpose(2, 3),
        "bfloat16": logits.to(torch.bfloat16),
    }[layout].requires_grad_()
    value = LOSSES[name](other, target, 0.7)
    value.backward()
    tolerance = {"rtol": 1e-2, "atol": 1e-4} if layout == "bfloat16" else {"rtol": 1e-9}
    np.testing.assert_allclose(float(value.detach()), expected[0], rtol=1e-5 if layout == "bfloat16" else 0)
    assert other.grad is not None
    np.testing.assert_allclose(other.grad.double().numpy(), expected[1], **tolerance)


def test_normalisation_by_pixels():
    logits, target = some_pixels()
    known, outliers = int((target < 5).sum()), int((target == OOD).sum())
    published = entropy_maximization(logits, target, 0.9)
    pixels = entropy_maximization(logits, target, 0.9, normalisation="pixels")
    ratio = target.numel() * 5 / (known + outliers)
    torch.testing.assert_close(pixels, published * ratio, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="known: pixels, published"):
        entropy_maximization(logits, target, 0.9, normalisation="voxels")


def test_cross_entropy_is_that_of_torch():
    logits, target = some_pixels()
    known = target.long().where(target < 5, torch.tensor(-100))
    expected = torch.nn.functional.cross_entropy(logits, known)
    torch.testing.assert_close(cross_entropy(logits, target), expected, rtol=1e-12, atol=0)


def test_outlier_exposure_and_energy_hinge_by_hand():
    logits, target = some_pixels()
    log_p = torch.log_softmax(logits, 1)
    usual = cross_entropy(logits, target)
    uniform = -log_p.mean(1)[target == OOD].mean()
    torch.testing.assert_close(outlier_exposure(logits, target, 0.5), usual + 0.5 * uniform, rtol=1e-12, atol=0)
    energy = -logits.exp().sum(1).log()
    over = (energy[target < 5] + 4).clamp(min=0).square().mean()
    under = (-2 - energy[target == OOD]).clamp(min=0).square().mean()
    torch.testing.assert_close(
        energy_hinge(logits, target, 0.1, margin_in=-4.0, margin_ood=-2.0),
        usual + 0.1 * (over + under),
        rtol=1e-12,
        atol=0,
    )


def test_unknown_class_by_hand():
    logits, target = some_pixels()
    sums = logits.exp().sum(1)
    unknown = -(1 / (1 + sums))[target == OOD].log().sum()
    own = torch.zeros_like(sums)
    for label in range(5):
        own = torch.where(target == label, logits[:, label] - (1 + sums).log(), own)
    total = (0.3 * -own.sum() + 0.7 * unknown) / ((target < 5) | (target == OOD)).sum()
    torch.testing.assert_close(unknown_class(logits, target, 0.7), total, rtol=1e-12, atol=0)


def test_shapes_must_fit():
    logits, target = some_pixels()
    with pytest.raises(ValueError, match="do not belong together"):
        entropy_maximization(logits, target[:, :3], 0.5)


def test_objective_ramps_and_names_unknown_options():
    base = {"epochs": 1, "batch_size": 1, "crop": 16, "learning_rate": 0.1}
    logits, target = some_pixels()
    counts = PixelCounts(100, 40, 10)
    params = config.TrainParams(**base, ood_weight=0.8, ood_weight_ramp=0.5)
    objective = ood_objective(params)
    for done, weight in ((0, 0), (0.25, 0.4), (0.5, 0.8), (1, 0.8)):
        expected = entropy_maximization(logits, target, weight, counts)
        torch.testing.assert_close(objective(logits, target, counts, done), expected)
    with pytest.raises(ValueError, match=r"train.loss_options: margin unknown.*normalisation"):
        ood_objective(config.TrainParams(**base, loss_options={"margin": 1}))
    with pytest.raises(ValueError, match="cross_entropy"):
        ood_objective(config.TrainParams(**base, loss="focal"))


def some_weights() -> Tensor:
    return torch.tensor([0.2, 1.0, 3.0, 0.0, 1.5], dtype=torch.float64)


def weighted_by_torch(logits: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the weighted cross entropy over the known pixels, as PyTorch computes it."""
    known = target.long().where(target < 5, torch.tensor(-100))
    return torch.nn.functional.cross_entropy(logits, known, weight=some_weights(), reduction="sum")


def stated(name: str, logits: Tensor, target: Tensor) -> Tensor:
    """Return a loss with class weights and λ = 0.3, stated with PyTorch's own functions."""
    known, unknown = target < 5, target == OOD
    inside = weighted_by_torch(logits, target)
    uniform = -torch.log_softmax(logits, 1).mean(1)[unknown].sum()
    if name == "entropy_maximization":
        return (0.7 * inside + 0.3 * uniform) / (target.numel() * 5)
    if name == "outlier_exposure":
        return inside / known.sum() + 0.3 * uniform / unknown.sum()
    if name == "unknown_class":
        more = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)
        weights = torch.cat([0.7 * some_weights(), torch.tensor([0.3], dtype=torch.float64)])
        labels = target.long().where(known, torch.where(unknown, 5, -100))
        total = torch.nn.functional.cross_entropy(more, labels, weight=weights, reduction="sum")
        return total / (known | unknown).sum()
    hinges = energy_hinge(logits, target, 0.3) - cross_entropy(logits, target) if name == "energy_hinge" else 0.0
    return inside / known.sum() + hinges


@pytest.mark.parametrize("name", LOSSES)
def test_class_weights_are_those_of_torch(name: str, monkeypatch):
    monkeypatch.setattr("meta_ood.training.losses._CHUNK", 17)
    logits, target = some_pixels()
    values, gradients = [], []
    for loss in (
        lambda z: LOSSES[name](z, target, 0.3, class_weights=some_weights()),
        lambda z: stated(name, z, target),
    ):
        z = logits.clone().requires_grad_()
        value = loss(z)
        value.backward()
        assert z.grad is not None
        values.append(value.detach())
        gradients.append(z.grad)
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-15)
    # weights of 1 change nothing at all
    ones = LOSSES[name](logits, target, 0.3, class_weights=torch.ones(5))
    assert torch.equal(ones, LOSSES[name](logits, target, 0.3))


def test_balanced_weights():
    pixels = torch.tensor([900, 90, 10, 0])
    shares = np.array([0.9, 0.09, 0.01, 0.0])
    enet = 1 / np.log(1.02 + shares)
    weights = balanced(pixels, 1.0).numpy()
    np.testing.assert_allclose(weights, enet / (enet * shares).sum(), rtol=1e-6)
    np.testing.assert_allclose((weights * shares).sum(), 1, rtol=1e-6)
    assert (np.diff(weights) > 0).all()
    np.testing.assert_allclose(balanced(pixels, 0.5).numpy(), weights**0.5, rtol=1e-6)
    assert (balanced(pixels, 0.0) == 1).all()
    torch.testing.assert_close(balanced(torch.zeros(4), 1.0), torch.ones(4))


def test_the_objective_takes_class_weights():
    params = config.TrainParams(epochs=1, batch_size=1, crop=16, learning_rate=0.1, ood_weight=0.8)
    logits, target = some_pixels()
    counts = count(target, 5)
    found = ood_objective(params, some_weights())(logits, target, counts, 1.0)
    expected = entropy_maximization(logits, target, 0.8, counts, some_weights())
    assert torch.equal(found, expected)
    assert not torch.equal(found, ood_objective(params)(logits, target, counts, 1.0))
    with pytest.raises(ValueError, match="class_weights unknown"):
        ood_objective(config.TrainParams(**{**dict(params), "loss_options": {"class_weights": 1}}))


# --- soft targets of a teacher ---------------------------------------------------------------


def with_teacher(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, a target with every kind of pixel, and a teacher's logits, in float64."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.tensor([0, 1, 2, IN, OOD, IGNORE, NEUTRAL, IN], dtype=torch.uint8)
    target = target[torch.randint(8, (2, 6, 7), generator=generator)]
    logits, teacher = (torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    return logits.requires_grad_(), target, teacher


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    return torch.nn.functional.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_without_class_take_the_teacher_s_predictions(name):
    logits, target, teacher = with_teacher(0)
    params = config.load(PARAMS, [f"train.loss={name}", "train.loss_options={}", "train.distillation=0.7"]).train
    counts = count(target, 3)
    found = ood_objective(params)(logits, target, counts, 0.5, teacher)
    inside, unlabelled = target < 3, target == IN
    known = int(inside.sum() + unlabelled.sum())
    # 1. the loss of the pixels with a class or OoD, its means running over those without class, too
    own = PixelCounts(counts.pixels, known, counts.ood)
    hard = LOSSES[name](logits, target, params.ood_weight, counts=own)
    # 2. the divergence has the weight of the in-distribution term at IN, and distillation everywhere in distribution
    weights = {
        "entropy_maximization": (1 - params.ood_weight) / (3 * target.numel()),
        "unknown_class": (1 - params.ood_weight) / (known + counts.ood),
    }
    each = divergence(logits, teacher)
    soft = weights.get(name, 1 / known) * each[unlabelled].sum() + 0.7 * each[inside | unlabelled].sum() / known
    torch.testing.assert_close(found, hard + soft)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found, hard + soft)]
    torch.testing.assert_close(*gradients)
    # 3. a network that is its own teacher learns nothing from itself
    again = ood_objective(params)(teacher.clone().requires_grad_(), torch.full_like(target, IN), counts, 0.5, teacher)
    assert abs(float(again.detach())) < 1e-12


def test_the_gradient_of_soft_targets_is_that_of_finite_differences():
    logits, target, teacher = with_teacher(1)
    soft = SoftTargets(teacher, 0.3)
    assert torch.autograd.gradcheck(lambda z: outlier_exposure(z, target, 0.4, soft=soft), logits)
    # 16 bit logits: the sums are float32
    value = outlier_exposure(logits.detach().bfloat16(), target, 0.4, soft=SoftTargets(teacher.bfloat16(), 0.3))
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(outlier_exposure(logits, target, 0.4, soft=soft).detach()), rel=0.02)
