"""Checks of params.yaml that need the registries: options of readers, losses, networks and classifiers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from meta_ood import datasets, models
from meta_ood.config import Params
from meta_ood.data.labels import CITYSCAPES
from meta_ood.meta_classification.models import fitter
from meta_ood.training.losses import ood_objective


def check_options(params: Params) -> None:
    """Raise a ValueError with the key in params.yaml if an option is unknown; no data is read."""
    for name, dataset in params.datasets.items():
        with _named(f"datasets.{name}.options"):
            datasets.check_options(dataset.reader, dataset.options)
    for name, network in params.network.items():
        with _named(f"network.{name}"):
            ood_objective(params.train_of(name))
        # not for builders of users, whose module may be missing here; the device "meta" has no memory
        if ":" not in network.architecture:
            with _named(f"network.{name}.options"), torch.device("meta"):
                models.build(network.architecture, len(CITYSCAPES.names), **network.options)
    with _named("meta.classifier_options"):
        fitter(params.meta.classifier, **params.meta.classifier_options)


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
