"""Commands for the tracking store and the registry of models."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from meta_ood.cli import options


@click.command()
@click.argument("what")
@click.argument("other", required=False)
def lineage(what: str, other: str | None) -> None:
    """Print where WHAT comes from: a file, a run id, NAME@ALIAS or NAME/VERSION of a model.

    With OTHER, a second run or version: what differs between the two, parameters first.
    """
    from meta_ood.tracking import location
    from meta_ood.tracking.lineage import Lineage

    known = Lineage(location.root())
    for line in known.between(what, other) if other else known.of(what):
        click.echo(line)


@click.command()
@options.params_file
@options.as_json
def sync(params_file: Path, as_json: bool) -> None:
    """Record runs of stages that DVC ran or took from its cache; end runs that were killed."""
    from meta_ood.tracking import location
    from meta_ood.tracking.sync import sync as record

    recorded = record(location.root(), params_file)
    options.answer(as_json, {"recorded": recorded}, f"recorded {recorded}; to look at them: meta-ood ui")


@click.command()
@click.option("--port", default=5000, help="Port of this machine.")
@click.option("--experiment", default="meta-ood", help="Its name.")
def ui(port: int, experiment: str) -> None:
    """Serve MLflow's web pages and print the addresses of runs, results and training curves."""
    from meta_ood.tracking import location, store

    root = location.root()
    uri = location.store_uri(root)
    number = store.experiment_id(store.open_store(root), experiment)
    served = uri.startswith(("http://", "https://"))
    server = uri if served else f"http://127.0.0.1:{port}"
    for title, stage in (("all runs", ""), ("results", "evaluate"), ("training curves", "train")):
        address = location.without_password(store.ui_address(server, number, stage))
        click.echo(f"{title:16} {address.replace('***@', '')}")  # the browser asks for name and password
    if not served:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--backend-store-uri", uri]
        command += ["--port", str(port), "--uvicorn-opts", "--log-level warning"]
        # jobs are a matter of MLflow's GenAI mode: without them the server starts twice as fast
        os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        sys.stdout.flush()
        os.execv(command[0], command)


@click.command()
@click.argument("run")
@click.option("--into", type=options.PATH, help="Folder of the new worktree.  [default: ../reproduce-RUN]")
@click.option("--do", "execute", is_flag=True, help="Execute the commands, not only print them.")
def reproduce(run: str, into: Path | None, execute: bool) -> None:
    """Print the commands that give the outputs of RUN again, in a separate worktree."""
    from meta_ood.tracking import location
    from meta_ood.tracking import reproduce as again

    script = again.script(location.root(), run, into)
    click.echo("\n".join(script.lines))
    if execute:
        click.echo(again.execute(script))


@click.command()
@options.network
@click.option("--variant", default="ood_trained")
@click.option("--force", is_flag=True, help="Promote although the gate refuses.")
@options.params_file
@options.overrides
@options.as_json
def promote(
    network: str, variant: str, force: bool, params_file: Path, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Make a network's detector champion if its evaluations pass the gate (tracking.champion).

    Exit code 3: the gate refuses.
    """
    from meta_ood import config
    from meta_ood.pipeline.paths import stage_paths

    params = config.load(params_file, overrides)
    folder = stage_paths("detector", params, network, variant).outputs["detector"]  # refuses unknown names
    # mlflow takes seconds to import: after the names are checked
    from meta_ood.tracking import champion, gate, location

    # 1. the gate, from the evaluations
    result = gate.check(params, network, variant)
    found: dict[str, Any] = {"passed": result.passed, "comparisons": result.lines, "model": None}
    if not (result.passed or force):
        refused = (
            f"{network} {variant} is not promoted; --force does it all the same, tracking.champion has the margins"
        )
        options.answer(as_json, found, "\n".join([*result.lines, refused]))
        raise SystemExit(3)
    # 2. the alias in the registry
    root = location.root()
    version = champion.promote(root, network, variant, folder)
    uri, model = location.without_password(location.store_uri(root)), f"models:/{network}@{champion.CHAMPION}"
    done = f"{network} version {version.version} is champion; to serve it:"
    command = f"  MLFLOW_TRACKING_URI={uri} meta-ood serve {model} --port 5001"
    found |= {"model": model, "version": int(version.version), "store": uri}
    options.answer(as_json, found, "\n".join([*result.lines, done, command]))
