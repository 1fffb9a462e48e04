"""``meta-ood thresholds``: choose thresholds on one set, to be used on others."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("dataset")
@click.option(
    "--evaluations",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("data/evaluate"),
    show_default=True,
    help="Folder of the evaluations.",
)
def thresholds(dataset: str, evaluations: Path) -> None:
    """Print the best-F1 thresholds of DATASET, of every network and variant, for params.yaml.

    With them in evaluate.component_thresholds the component metrics of the score maps are no
    oracle's on any other set; on DATASET itself they stay one.
    """
    from meta_ood.report.compare import thresholds_text

    click.echo(thresholds_text(evaluations, dataset))
