"""Commands about the installation: what is there and works, and completion for shells."""

import os
import platform
from importlib import metadata, util
from pathlib import Path

import click

from meta_ood import __version__
from meta_ood.cli import options
from meta_ood.cli.remedies import OPTIONAL

_KERNELS = ("scores", "segments", "metrics.pixel")


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Show versions, kernels, GPUs and whether the tracking store answers.

    Exit code 3: something is missing or does not answer; its line says what to do.
    """
    found = [*_software(), *_hardware(), _store()]
    width = max(len(name) for name, *_ in found)
    marks = {True: click.style("ok ", fg="green"), False: click.style("!! ", fg="red")}
    lines = [f"{marks[ok]} {name:{width}}  {text}" for name, ok, text in found]
    options.answer(as_json, {name: {"ok": ok, "found": text} for name, ok, text in found}, "\n".join(lines))
    if not all(ok for _, ok, _ in found):
        raise SystemExit(3)


def _software() -> list[tuple[str, bool, str]]:
    """Return (name, whether it is fine, what was found) of Python, packages and kernels."""
    import torch
    import torchvision

    rows = [("meta-ood", True, f"{__version__}, Python {platform.python_version()}")]
    # a pair of torch and torchvision that does not match has no operators of torchvision
    matched = hasattr(torch.ops.torchvision, "nms")
    remedy = "" if matched else ": not a matched pair; install both from the same index"
    rows.append(("torch", matched, f"{torch.__version__}, torchvision {torchvision.__version__}{remedy}"))
    for package, (purpose, source) in OPTIONAL.items():
        there = util.find_spec(package) is not None
        # a package that is missing takes only its purpose away
        text = metadata.version(package) if there else f"not installed; for {purpose}: pip install '{source}'"
        rows.append((package, True, text))
    missing = [room for room in _KERNELS if util.find_spec(f"meta_ood.{room}._kernel") is None]
    text = f"not compiled: {', '.join(missing)}; pip install -e ." if missing else "compiled"
    return [*rows, ("kernels", not missing, text)]


def _hardware() -> list[tuple[str, bool, str]]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = ", ".join(gpus) or "none; networks run on the CPU"
    return [("processors", True, f"{os.cpu_count()}"), ("GPU", True, gpu)]


def _store() -> tuple[str, bool, str]:
    """Say where the tracking store is and whether it answers."""
    if util.find_spec("mlflow") is None:
        return ("tracking", True, "off, as mlflow is not installed")
    from meta_ood.tracking import location, store

    root = location.root()
    uri = location.store_uri(root)
    named = location.without_password(uri)
    database = location.database_of(uri)
    if database is not None and not Path(database).exists():
        return ("tracking", True, f"{named}; the first stage makes it")
    try:
        store.open_store(root).search_experiments(max_results=1)
    except Exception as error:  # drivers raise their own kinds
        reason = location.short_reason(error)
        return ("tracking", False, f"{named} does not answer: {reason}; the variable MLFLOW_TRACKING_URI names it")
    return ("tracking", True, f"{named} answers")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    bash and zsh: eval "$(meta-ood completion bash)"; fish: meta-ood completion fish | source.
    """
    from click.shell_completion import get_completion_class

    from meta_ood.cli import main

    made_by = get_completion_class(shell)
    assert made_by is not None
    click.echo(made_by(main, {}, "meta-ood", "_META_OOD_COMPLETE").source())
