"""``meta-ood weights``: released weights into safetensors, and what a weights file says."""

from __future__ import annotations

import json
from pathlib import Path

import click

from meta_ood import config
from meta_ood.data.labels import CITYSCAPES

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(help="Import released weights; look at a weights file.")
def weights() -> None:
    """Group the commands."""


@weights.command("import", short_help="Turn a released checkpoint into weights of a network.")
@click.argument("file", type=_FILE)
@click.option("--network", required=True, help="Name of the network in the params file.")
@click.option(
    "--variant",
    required=True,
    type=click.Choice(["baseline", "ood_trained"]),
    help="What the weights are.",
)
@click.option("--origin", default="", help="Where the file is from: a URL, a paper.")
@click.option("--params", type=_FILE, default=Path("params.yaml"), show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As for stages.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/weights"),
    show_default=True,
    help="Folder; the file is OUT/NETWORK/VARIANT.safetensors.",
)
@click.option("--track/--no-track", default=True, help="Register in MLflow, or do not.")
def import_(
    file: Path,
    network: str,
    variant: str,
    origin: str,
    params: Path,
    overrides: tuple[str, ...],
    out: Path,
    track: bool,
) -> None:
    """Read FILE (weights only), check it against the network, store and register it.

    Known formats: torch.save files and safetensors, a bare state dict or one below "state_dict" or
    "model". One prefix of all names ("module.", "model.", ...) is removed. Everything must fit, or
    nothing is written.
    """
    from meta_ood import tracking
    from meta_ood.models import published

    settings = config.load(params, overrides)
    own = settings.network_params(network)
    stored = out / network / f"{variant}.safetensors"
    report = published.import_weights(
        file,
        stored,
        name=network,
        architecture=own.architecture,
        options=own.options,
        class_names=CITYSCAPES.names,
        variant=variant,
        origin=origin,
    )
    click.echo("\n".join(report.lines()))
    with tracking.run(
        "import",
        keys={"network": network, "variant": variant},
        params={"architecture": own.architecture, "origin": origin},
        inputs={"file": file},
        experiment=settings.tracking.experiment,
        enabled=track,
    ) as run:
        run.outputs({"weights": stored})
    click.echo(f"stored      {stored}")
    click.echo(f"use it      network.{network}.weights: {{{variant}: {stored}}}")


@weights.command("show", short_help="Print what a weights file of ours says about itself.")
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print the metadata of FILE as JSON."""
    from meta_ood.models import checkpoint

    click.echo(json.dumps(checkpoint.read_metadata(file), indent=2, ensure_ascii=False))
