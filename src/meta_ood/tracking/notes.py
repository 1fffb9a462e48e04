"""A run's description in Markdown: what came out, a picture, and where to look next."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from meta_ood.tracking.journal import Event

EXPERIMENT = """\
One run a stage. `tags.stage = "evaluate"` shows the results: group by `network` or `dataset`, or
select the baseline and ood_trained runs of a dataset and compare. Charts under `evaluate/` compare
variants, those under `auroc/`, `auprc/` and `fpr95/` compare scores.
"""


def describe(start: Event, events: Sequence[Event], run_id: str) -> str:
    """Return the description of a run, "" if there is nothing to say beyond its name.

    Parameters
    ----------
    start, events
        All of its journal.
    run_id
        For the address of its pictures.
    """
    tags = start["tags"]
    values = next((e["values"] for e in events if e["kind"] == "evaluation"), None)
    files = [e["to"] for e in events if e["kind"] == "file"]
    parts = []
    if values is not None:
        parts.append(_results(tags, values))
    if any(e["kind"] == "model" for e in events):
        network = tags["network"]
        parts.append(f"Registered as a version of [{network}](#/models/{network}).")
    if tags.get("restored"):
        parts.append("Restored by `meta-ood sync`: DVC had the outputs in its cache, no code ran.")
    shown = [f for f in files if f.endswith("_segments.png")]
    if shown:
        query = urllib.parse.urlencode({"path": shown[0], "run_uuid": run_id})
        parts.append(f"![segments kept and rejected](get-artifact?{query})")
        parts.append("Orange: segments kept; blue, hatched: rejected; white outline: true objects.")
    pages = [f for f in files if f.endswith("index.html")]
    parts += [f"The page is under Artifacts: `{page}`." for page in pages]
    return "\n\n".join(parts)


def _results(tags: Mapping[str, str], values: Mapping[str, Any]) -> str:
    title = f"**{tags['network']} {tags['variant']}** on **{tags['dataset']}**"
    said = [
        f"{name} {values[key]:.4f}"
        for name, key in (
            ("AUROC", "auroc"),
            ("AUPRC", "auprc"),
            ("FPR95", "fpr95"),
            ("mIoU", "miou"),
        )
        if isinstance(values.get(key), int | float)
    ]
    before, after = (values.get(f"segment_false_positives{end}") for end in ("", "_after_meta"))
    if before is not None and after is not None:
        said.append(f"false-positive segments {before} → {after} with meta classification")
    return f"{title}: {', '.join(said)}"
