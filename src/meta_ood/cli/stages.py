"""One command per stage, all made by the same function, and the helper stages `code` and `roles`."""

import hashlib
import importlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from meta_ood import config
from meta_ood.cli import options
from meta_ood.cli.options import EXPERIMENTS, read_text
from meta_ood.data.context import Machine
from meta_ood.data.files import running
from meta_ood.pipeline import paths as layout

LOCKS = Path(".meta_ood/locks")

logger = logging.getLogger(__name__)


def stage_command(stage: str, text: str) -> click.Command:
    """Return the command of `stage`; its options are the stage's keys and the common ones."""

    def callback(
        device: str,
        workers: int,
        as_json: bool,
        engine: str = "local",
        address: str | None = None,
        experiments: Path | None = None,
        compare: tuple[str, str] | None = None,
        **given: Any,
    ) -> None:
        if compare:
            if experiments:
                raise click.UsageError("--compare and --experiments exclude each other")
            page = _compare(compare, given["out"])
            options.answer(as_json, {"page": str(page)}, str(page))
            return
        if experiments and given["out"].resolve() == layout.DATA.resolve():
            raise click.UsageError("--experiments needs --out other than data: what DVC owns holds results of one run")
        keys = {key: given.pop(key) for key in layout.STAGES[stage]}
        more = {"experiments": read_text(experiments)} if experiments else {}
        written = run_stage(stage, keys, machine=Machine(device, workers, engine, address), more=more, **given)
        if as_json:
            options.answer(True, {name: str(path) for name, path in written.items()}, "")
        elif stage == "report" and "DVC_STAGE" not in os.environ:
            click.echo((written["report"] / "results.txt").read_text(encoding="utf-8"))

    lines = [f"  {key}: {expected}" for section in config.SECTIONS[stage] for key, expected in config.describe(section)]
    epilog = "\n".join(["\b\nParameters (--set KEY=VALUE):", *lines])
    out = options.out_option("data", "Folder that the stage writes below; its inputs are read below data.")
    decorators = [options.KEYS[key] for key in layout.STAGES[stage]]
    decorators += [options.params_file, options.overrides, out, options.device, options.workers, options.track]
    decorators.append(options.as_json)
    if stage in ("infer", "segments", "evaluate"):
        decorators += [options.engine, options.address]
    if stage == "report":
        about = "What `dvc exp show --csv` prints: adds a section over seeds; needs --out."
        decorators.append(click.option("--experiments", type=EXPERIMENTS, help=about))
        about = "Instead: two folders or DVC revisions side by side, as compare.html in outputs or --out."
        decorators.append(click.option("--compare", nargs=2, metavar="A B", help=about))
    function: Any = callback
    for decorate in reversed(decorators):  # click lists the options from the last to the first
        function = decorate(function)
    return click.command(stage, help=text, epilog=epilog)(function)


def _compare(names: tuple[str, str], out: Path) -> Path:
    """Write the page of two experiments beside each other."""
    from meta_ood.data.files import write_text
    from meta_ood.report.experiments import read_experiment
    from meta_ood.report.page import compare_page

    # DVC owns data, which has the results of one run
    folder = Path("outputs") if out.resolve() == layout.DATA.resolve() else out
    page = compare_page("meta-ood: two experiments", *map(read_experiment, names))
    write_text(folder / "compare.html", page)
    return folder / "compare.html"


def run_stage(
    stage: str,
    keys: dict[str, str],
    *,
    params_file: Path,
    overrides: Sequence[str] = (),
    out: Path = layout.DATA,
    machine: Machine | None = None,
    track: bool = True,
    more: Mapping[str, Any] | None = None,
) -> Mapping[str, Path]:
    """Run one instance of a stage, tracked, and return its outputs by name.

    `more` are arguments of the stage's function beyond keys and paths.

    Raises:
        ConfigError: If the params file, an override or a key is wrong.
        FileNotFoundError: If an input is missing; says which stage makes it.
    """
    from meta_ood import tracking
    from meta_ood.scores import fitted_scores

    # 1. what can be wrong without a look at any data
    params = config.load(params_file, overrides)
    paths = layout.stage_paths(stage, params, out=out, **keys)
    values = config.stage_values(params, stage, **keys)
    _warn_of_unused(stage, overrides, params, config.load(params_file))
    # 2. inputs; statistics are there for some scores only
    fitted = ", ".join(fitted_scores(params.infer.scores))
    found = {name: path for name, path in paths.inputs.items() if path.exists()}
    for name, path in paths.inputs.items():
        if name in found or (name == "statistics" and not fitted):
            continue
        remedy = "run the stages before it (dvc repro), or see data/README.md for raw datasets"
        if name == "statistics":
            own = " ".join(f"--{key} {keys[key]}" for key in layout.STAGES["statistics"])
            remedy = f"infer.scores has {fitted}, which need it; make it with: meta-ood statistics {own}"
        raise FileNotFoundError(f"{path}, the {name} of stage {stage}, does not exist: {remedy}")
    for path in paths.outputs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    # 3. the stage itself
    recorded: dict[str, Any] = {"setting": layout.setting_of(params, stage, **keys), "enabled": track}
    recorded["experiment"] = params.tracking.experiment
    started, instance = time.monotonic(), " ".join([stage, *keys.values()])
    with (
        _alone(instance, out.resolve(), values),
        tracking.run(stage, keys=keys, params=values, inputs=found, **recorded) as run,
    ):
        module: Any = importlib.import_module(f"meta_ood.pipeline.{stage}")
        given = {**keys, **paths.arguments, **(more or {})}
        module.run(params, **given, log=run.log, machine=machine or Machine())
        run.outputs(paths.outputs)
    made = ", ".join(_size(path) for path in paths.outputs.values())
    logger.info("%s: wrote %s in %.1f s", instance, made, time.monotonic() - started)
    return paths.outputs


def _alone(instance: str, *shared: object) -> ExitStack:
    """Lock what two runs of an instance would share: its outputs, and its unfinished work."""
    with ExitStack() as locks:
        # the other processes of torchrun work for the one of rank 0
        for what in shared if os.environ.get("RANK", "0") == "0" else ():
            name = hashlib.sha256(repr((instance, what)).encode()).hexdigest()[:16]
            locks.enter_context(running(instance, LOCKS / f"{name}.lock"))
        return locks.pop_all()


def _warn_of_unused(stage: str, overrides: Sequence[str], params: config.Params, before: config.Params) -> None:
    """Warn of overrides that change a section which the stage does not use."""
    used = {section.split(".")[0] for section in config.SECTIONS[stage]} | {"tracking"}
    for override in overrides:
        section = override.split(".")[0].split("=")[0]
        if section not in used and getattr(params, section) != getattr(before, section):
            logger.warning("--set %s changes nothing: %s uses %s", override, stage, ", ".join(sorted(used)))


def _size(path: Path) -> str:
    """Return a path with the number of its files, or with its size."""
    if path.is_dir():
        return f"{path} ({sum(child.is_file() for child in path.rglob('*'))} files)"
    return f"{path} ({path.stat().st_size / 1e3:,.0f} kB)"


@click.command()
@options.params_file
@options.out_option("data/code", "Folder to write.")
def code(params_file: Path, out: Path) -> None:
    """Check params.yaml; write digests of the code that each stage runs, and of given weights.

    DVC runs this before all stages: what is wrong in params.yaml is found within seconds.
    """
    from meta_ood.data.files import write_text
    from meta_ood.pipeline.checks import check_options
    from meta_ood.pipeline.code_digest import own_modules, stage_digest, weights_digests, weights_line

    params = config.load(params_file)
    check_options(params)
    networks = [own.architecture for own in params.network.values()]
    own_code = {"prepare": [own.reader for own in params.datasets.values()], "statistics": networks, "infer": networks}
    own_code |= {"segments": [params.segments.score], "evaluate": [params.segments.score, *params.evaluate.scores]}
    # the other networks of an ensemble are no deps of dvc.yaml, which knows no lists
    repetition = params.infer.repetition
    cells = [(network, variant) for network in params.networks for variant in params.variants] if repetition else []
    ensemble = {path for cell in cells for path in (repetition.files(*cell) if repetition else ())}
    members = "".join(weights_line("infer.repetition.weights", path) for path in sorted(ensemble))
    for stage in layout.STAGES:
        text = stage_digest(stage) + own_modules(own_code.get(stage, ()))
        write_text(out / f"{stage}.txt", text + (members if stage in ("infer", "detector") else ""))
    for network, own in params.network.items():
        given: dict[Any, str] = {**own.weights}
        if own.architecture == "transformers" and (folder := own.options.get("path")):
            given |= {name: f"{folder}/{name}" for name in ("config.json", "preprocessor_config.json")}
        for variant, text in weights_digests(given).items():
            write_text(out / "weights" / f"{network}-{variant}.txt", text + own_modules([own.architecture]))


@click.command()
@options.params_file
@options.out_option("data/roles", "Folder to write.")
def roles(params_file: Path, out: Path) -> None:
    """For each role of training, write its datasets with a hash of what is prepared of them.

    DVC runs this after `prepare`: trainings run again when one of their own datasets changes, and with no other.
    """
    from meta_ood.data.files import write_text
    from meta_ood.pipeline.code_digest import role_digest

    for role, sets in config.load(params_file).roles:
        write_text(out / f"{role}.txt", role_digest(sets, layout.DATA / "prepare"))


@click.command()
@options.params_file
def repair(params_file: Path) -> None:
    """Repair dvc.lock and DVC's own lock after a kill, a full disk or a power cut; then run `dvc repro`.

    Checks params.yaml too: DVC, which reads it before any stage, is kept busy for ever by nested aliases.
    """
    from meta_ood.pipeline import lockfile

    for line in lockfile.repair() or ["nothing to repair"]:
        logger.info(line)
    config.load(params_file)
