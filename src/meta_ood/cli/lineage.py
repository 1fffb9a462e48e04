"""Tools for the tracking store: lineage, sync, reproduce."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("what")
def lineage(what: str) -> None:
    """Print where WHAT comes from: a file, a run id, NAME@ALIAS or NAME/VERSION of a model."""
    from meta_ood.tracking import facts
    from meta_ood.tracking.lineage import Lineage

    for line in Lineage(facts.root()).of(what):
        click.echo(line)


@click.command()
@click.option(
    "--params",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The params file.",
)
def sync(params: Path) -> None:
    """Write waiting runs to the store; restore runs of stages that DVC took from its cache."""
    from meta_ood.tracking import facts
    from meta_ood.tracking.journal import PLACE, journals
    from meta_ood.tracking.sync import sync as write

    written, restored = write(facts.root(), params)
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
    """Print the commands that give the outputs of RUN again, in a worktree of their own."""
    from meta_ood.tracking import facts
    from meta_ood.tracking import reproduce as again

    plan = again.plan(facts.root(), run, into)
    for line in plan.lines():
        click.echo(line)
    if execute:
        click.echo(again.execute(plan))
