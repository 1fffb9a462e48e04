"""``meta-ood submit``: score maps for benchmark servers, from stored predictions."""

from __future__ import annotations

from pathlib import Path

import click

from meta_ood import config
from meta_ood.pipeline import paths as layout


@click.command(help="Write score maps of stored predictions in the format of a benchmark.")
@click.argument("benchmark")
@click.option("--network", required=True, help="Name of the network in the params file.")
@click.option("--variant", required=True, help="baseline or ood_trained.")
@click.option("--dataset", required=True, help="Name of the dataset in the params file.")
@click.option("--score", help="Default: segments.score of the params file.")
@click.option(
    "--params", "params_file", type=click.Path(dir_okay=False, path_type=Path),
    default=Path("params.yaml"), show_default=True, help="The params file.",
)  # fmt: skip
@click.option(
    "--to", type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to; default outputs/submissions/BENCHMARK/NETWORK/VARIANT/DATASET.",
)  # fmt: skip
def submit(
    benchmark: str, network: str, variant: str, dataset: str, score: str | None,
    params_file: Path, to: Path | None,
) -> None:  # fmt: skip
    """BENCHMARK is fishyscapes or segment_me_if_you_can."""
    from meta_ood.data import prediction_files
    from meta_ood.data.context import progress
    from meta_ood.evaluation import submissions

    params = config.load(params_file)
    paths = layout.stage_paths(
        "segments", params, network=network, variant=variant, dataset=dataset
    )
    predictions = prediction_files.open_predictions(paths.inputs["predictions"])
    folder = to or Path("outputs/submissions", benchmark, network, variant, dataset)
    name = score or params.segments.score
    for prediction in progress(predictions, "submit", len(predictions)):
        submissions.submit(prediction, name, benchmark, folder)
    click.echo(f"{len(predictions)} files in {folder}")
