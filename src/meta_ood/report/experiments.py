"""Two experiments side by side: read from a folder or from DVC, evaluation by evaluation in pairs."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from meta_ood.config import flat, read_yaml
from meta_ood.report.compare import Difference, difference
from meta_ood.report.results import Evaluation, Key, read_evaluations

_EVALUATIONS, _PARAMS = "data/evaluate", "params.yaml"
_SAME = ("frames", "scenes", "components", "pixels")  # of evaluations of the same data


@dataclass(frozen=True)
class Experiment:
    """The evaluations of one experiment."""

    name: str
    evaluations: Mapping[Key, Evaluation]
    parameters: Mapping[str, str]  # dotted key -> value; empty if there is no params.yaml


def read_experiment(name: str) -> Experiment:
    """Read an experiment.

    Args:
        name: A folder, of evaluations or with data/evaluate below it, or else a revision that DVC knows: the name of an
            experiment, a branch, a tag or a commit, of whose evaluations DVC's cache has the metrics.

    Raises:
        FileNotFoundError: If there is no evaluation.
        ValueError: If `name` is neither, or a file cannot be understood.
    """
    if (folder := Path(name)).is_dir():
        root = below if (below := folder / _EVALUATIONS).is_dir() else folder
        # an evaluations folder lies two below the params file
        files = [folder / _PARAMS, folder.absolute().parents[1] / _PARAMS]
        return _read(name, root, next((path for path in files if path.is_file()), None))
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError, resolve_rev

    with tempfile.TemporaryDirectory() as made:
        try:
            files_of = DVCFileSystem(rev=resolve_rev(Repo().scm, name))
            found = [path for path in files_of.find(_EVALUATIONS) if path.endswith(("metrics.json", "bootstrap.csv"))]
            for path in [*found, _PARAMS]:
                (Path(made) / path).parent.mkdir(parents=True, exist_ok=True)
                files_of.get_file(path, str(Path(made) / path))
        except (DvcException, SCMError, OSError) as error:
            raise ValueError(f"{name!r} is no folder, and DVC cannot read it as a revision: {error}") from None
        return _read(name, Path(made) / _EVALUATIONS, Path(made) / _PARAMS)


def _read(name: str, root: Path, params: Path | None) -> Experiment:
    values = flat(read_yaml(params)) if params else {}
    return Experiment(name, read_evaluations(root), {key: str(value) for key, value in values.items()})


class Comparison(NamedTuple):
    """One evaluation in two experiments."""

    first: Evaluation
    last: Evaluation
    changes: list[Difference | None]  # of the metrics asked for; None where one of the two has none
    is_paired: bool  # of the same data: only then do the changes have intervals


def compare_experiments(first: Experiment, last: Experiment, metrics: list[str]) -> list[Comparison]:
    """Compare the evaluations that both have, sorted by dataset, network and variant.

    Raises:
        ValueError: If they have none in common.
    """
    common = sorted(first.evaluations.keys() & last.evaluations.keys(), key=lambda key: (key[2], *key[:2]))
    if not common:
        raise ValueError(f"{first.name} and {last.name} have no evaluation of network, variant and set in common")
    found = []
    for key in common:
        pair = first.evaluations[key], last.evaluations[key]
        is_paired = all(pair[0].metrics.get(name) == pair[1].metrics.get(name) for name in _SAME)
        used = pair if is_paired else (replace(pair[0], curves={}), pair[1])
        found.append(Comparison(*pair, [difference(name, used) for name in metrics], is_paired))
    return found
