"""Commands for the tracking store and the registry of models."""

from __future__ import annotations

from pathlib import Path

import click

from meta_ood.cli import options


@click.command()
@click.argument("what")
def lineage(what: str) -> None:
    """Print where WHAT comes from: a file, a run id, NAME@ALIAS or NAME/VERSION of a model."""
    from meta_ood.tracking import facts
    from meta_ood.tracking.lineage import Lineage

    for line in Lineage(facts.root()).of(what):
        click.echo(line)


@click.command()
@options.params_file
def sync(params_file: Path) -> None:
    """Write waiting runs to the store; restore runs of stages that DVC took from its cache."""
    from meta_ood.tracking import facts
    from meta_ood.tracking.journal import PLACE, journals
    from meta_ood.tracking.sync import sync as write

    written, restored = write(facts.root(), params_file)
    click.echo(f"written {written}, restored {restored}")
    left = [j for j in journals(facts.root()) if not j.alive()]
    if left:
        raise click.ClickException(
            f"{len(left)} runs could not be written, see {facts.root() / PLACE / 'writer.log'}"
        )


@click.command()
@click.argument("run")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Folder of the new worktree.  [default: ../reproduce-RUN]",
)
@click.option("--do", "execute", is_flag=True, help="Execute the commands, not only print them.")
def reproduce(run: str, into: Path | None, execute: bool) -> None:
    """Print the commands that give the outputs of RUN again, in a separate worktree."""
    from meta_ood.tracking import facts
    from meta_ood.tracking import reproduce as again

    plan = again.plan(facts.root(), run, into)
    for line in plan.lines():
        click.echo(line)
    if execute:
        click.echo(again.execute(plan))


@click.command()
@options.network
@click.option("--variant", default="ood_trained", show_default=True)
@click.option("--force", is_flag=True, help="Promote although the gate refuses.")
@options.params_file
@options.overrides
def promote(
    network: str, variant: str, force: bool, params_file: Path, overrides: tuple[str, ...]
) -> None:
    """Make a network's detector champion if its evaluations pass the gate (tracking.champion).

    Exit code 3: the gate refuses.
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
