"""Checks of params.yaml that need the registries: options of readers, losses, networks and classifiers."""

from collections.abc import Iterator
from contextlib import contextmanager

from meta_ood import datasets
from meta_ood.config import Params
from meta_ood.data.labels import CITYSCAPES
from meta_ood.scores import find_score


def check_options(params: Params) -> None:
    """Raise a ValueError with the key in params.yaml if an option is unknown; no data is read."""
    for name, dataset in params.datasets.items():
        with _named(f"datasets.{name}.options"):
            datasets.check_options(dataset.reader, dataset.options)
    for score in (params.segments.score, *params.evaluate.scores):
        if ":" in score:  # one of the user's own
            with _named("segments.score, evaluate.scores"):
                find_score(score)
    # torch and scikit-learn take seconds to import: only for options, as no options are always right
    for name, network in params.network.items():
        if params.train_of(name).loss_options:
            from meta_ood.training.losses import ood_objective

            with _named(f"network.{name}"):
                ood_objective(params.train_of(name))
        # not for builders of users, whose module may be missing here; the device "meta" has no memory
        if network.options and ":" not in network.architecture:
            import torch

            from meta_ood import models

            with _named(f"network.{name}.options"), torch.device("meta"):
                models.build(network.architecture, len(CITYSCAPES.names), **network.options)
    if params.meta.classifier_options:
        from meta_ood.meta_classification.models import fitter

        with _named("meta.classifier_options"):
            fitter(params.meta.classifier, **params.meta.classifier_options)


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
