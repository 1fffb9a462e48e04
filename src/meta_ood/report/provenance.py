"""Where the figures of a report come from."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

from meta_ood import __version__
from meta_ood.config import Params
from meta_ood.report.results import Results


def provenance(params: Params, results: Results) -> dict[str, str]:
    """Return where the figures come from; nothing of time or machine."""
    metrics = {"/".join(key): cell.metrics for key, cell in results.cells.items()}
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in ("numpy", "matplotlib")),
        "meta-ood": __version__,
        "seed": str(params.seed),
        "OoD segments": f"{params.segments.score} at least {params.segments.threshold:g}",
        "results": _digest(metrics),
        "networks, variants, sets, segments": _digest(
            [params.networks, params.variants, params.evaluation_sets, params.segments.model_dump()]
        ),
    }


def _digest(value: object) -> str:
    return f"sha256 {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]}"
