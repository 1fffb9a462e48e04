import math

import pytest
import torch

from meta_ood.config import OptimisationParams
from meta_ood.training.optimisation import learning_rate, make_optimizer, update_ema


def params(**options) -> OptimisationParams:
    return OptimisationParams(**{"epochs": 1, "batch_size": 1, "crop": 16, "learning_rate": 0.5} | options)


def test_schedules():
    assert [learning_rate(params(), step, 4) for step in range(4)] == [0.5] * 4
    cosine = [learning_rate(params(schedule="cosine"), step, 4) for step in range(4)]
    assert cosine == pytest.approx([0.5, 0.25 * (1 + math.sqrt(0.5)), 0.25, 0.0732233], rel=1e-6)
    poly = [learning_rate(params(schedule="poly"), step, 4) for step in range(4)]
    assert poly == pytest.approx([0.5 * (1 - step / 4) ** 0.9 for step in range(4)])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_step_and_spare_biases_from_decay(name):
    network = torch.nn.Conv2d(1, 2, 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = make_optimizer(network, params(optimizer=name, weight_decay=0.1))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(network.bias, before["bias"])
    assert not torch.equal(network.weight, before["weight"])


def test_follow_is_an_exponential_average():
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        average.weight.fill_(1.0)
        network.weight.fill_(2.0)
        network.running_mean.fill_(5.0)
    update_ema(average, network, 0.9)
    torch.testing.assert_close(average.weight.detach(), torch.full((2,), 1.1))
    torch.testing.assert_close(average.running_mean, torch.full((2,), 5.0))
