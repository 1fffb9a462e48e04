"""``meta-ood promote``: the gate of the registry."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--network", required=True, help="Name of the network in the params file.")
@click.option("--variant", default="ood_trained", show_default=True)
@click.option("--force", is_flag=True, help="Promote although the gate says no.")
@click.option(
    "--params",
    "params_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The params file.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As for stages.")
def promote(
    network: str, variant: str, force: bool, params_file: Path, overrides: tuple[str, ...]
) -> None:
    """Make a network's detector champion if its evaluations pass the gate (tracking.champion).

    Exit code 3: the gate says no.
    """
    from meta_ood import config
    from meta_ood.pipeline.paths import stage_paths
    from meta_ood.tracking import champion, facts, gate

    params = config.load(params_file, overrides)
    verdict = gate.verdict(params, network, variant)
    for line in verdict.lines:
        click.echo(line)
    if not (verdict.passed or force):
        click.echo(f"{network} {variant} is not promoted")
        raise SystemExit(3)
    folder = stage_paths("detector", params, network, variant).outputs["detector"]
    root = facts.root()
    version = champion.promote(root, network, variant, folder)
    click.echo(f"{network} version {version.version} is champion; to serve it:")
    click.echo(
        f"  MLFLOW_TRACKING_URI={facts.store_uri(root)} "
        f"meta-ood serve models:/{network}@{champion.CHAMPION} --port 5001"
    )
