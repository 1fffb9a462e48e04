"""Commands for networks: architectures, released weights, other runtimes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from meta_ood.cli import options
from meta_ood.cli.options import FILE, PATH, Texts


@click.command()
@options.as_json
def networks(as_json: bool) -> None:
    """List the architectures that params.yaml may name, and what they cost."""
    from meta_ood.data.text_table import text_table
    from meta_ood.models import LIBRARIES, MODELS, catalogue, installed, library_of

    records: list[dict[str, Any]] = []
    rows, others = [], []
    for name in (*MODELS, "timm/BACKBONE"):
        if library := library_of(name):  # what it costs, the options say
            package, version = LIBRARIES[library], installed(library)
            records.append({"architecture": name, "package": package, "installed": version})
            others.append([name, package, version or f"no: pip install 'meta-ood[{library}]'"])
            continue
        facts, memory = catalogue.network_facts(name), catalogue.PEAK_MEMORY_GB.get(name)
        records.append({"architecture": name, **asdict(facts), "memory_gb": memory})
        cost = [f"{facts.parameters:,}", f"{facts.output_stride}", f"{facts.gflop:,.0f}"]
        rows.append([name, *cost, f"{memory:.1f} GB" if memory else "-"])
    table = text_table(["architecture", "parameters", "stride", "GFLOP", "memory"], rows)
    more = text_table(["architecture", "package", "installed"], others)
    height, width = catalogue.FRAME
    note = (
        f"GFLOP and peak memory (CPU, float32, measured by benchmarks/networks.py): one frame of {height} x {width}.\n"
        "Networks of libraries, and any other (architecture: package.module:builder): docs/own-network.md."
    )
    options.answer(as_json, records, f"{table}\n{more}\n{note}")


@click.command()
@options.as_json
def scores(as_json: bool) -> None:
    """List the scores that params.yaml may name: formula, range, and what they need."""
    from meta_ood.evaluation.counting import STANDARDISED
    from meta_ood.scores import LOGITS, SCORES

    listed = [(name, own.source, own.text) for name, own in SCORES.items()]
    # the one that `evaluate` alone knows (decision 0045)
    of_set = "logits, statistics of the evaluated set"
    listed.append((STANDARDISED, of_set, "-(max l - mean_c) / deviation_c, c the predicted class; any sign"))
    formatter = click.HelpFormatter(width=120)
    for source in dict.fromkeys(source for _, source, _ in listed):
        where = {LOGITS: "", of_set: ", in evaluate.scores alone"}.get(source, ", by `infer` if in infer.scores")
        with formatter.section(f"From {source}{where}"):
            formatter.write_dl([(name, text) for name, of, text in listed if of == source])
    note = (
        "Higher means more out-of-distribution. Of a pixel p softmax, l logits, f features;\n"
        "m_c mean features of class c or, of a mask model, the mass of class c;\n"
        "members are the passes that infer.repetition asks for."
    )
    records = [{"score": name, "source": source, "text": text} for name, source, text in listed]
    options.answer(as_json, records, f"{formatter.getvalue()}\n{note}")


@click.group()
def weights() -> None:
    """Import released weights; look at a weights file."""


@weights.command("import", short_help="Turn a released checkpoint into weights of a network.")
@click.argument("file", type=PATH)
@options.network
@click.option("--variant", required=True, type=click.Choice(["baseline", "ood_trained"]), help="What the weights are.")
@click.option("--origin", default="", help="Where the file is from: a URL, a paper.")
@options.params_file
@options.overrides
@options.out_option("data/weights", "Folder; the file is OUT/NETWORK/VARIANT.safetensors.")
@options.track
def import_(
    file: Path, network: str, variant: str, origin: str, params_file: Path, overrides: Texts, out: Path, track: bool
) -> None:
    """Read FILE (weights only), check it against the network, store and register it.

    Known formats: torch.save files and safetensors, a bare state dict or one below "state_dict" or "model"; for
    architecture transformers, the network's folder. One prefix of all names ("module.", "model.", ...) is removed.
    Everything must fit, or nothing is written.
    """
    from meta_ood import config, tracking
    from meta_ood.data.labels import CITYSCAPES
    from meta_ood.models import portable, published

    params = config.load(params_file, overrides)
    own = params.network_params(network)
    stored = out / network / f"{variant}.safetensors"
    # 1. everything fits, or an error that lists what does not
    made: dict[str, Any] = {"architecture": own.architecture, "class_names": CITYSCAPES.names}
    made["options"] = portable(own.architecture, own.options)
    report = published.import_weights(file, stored, name=network, variant=variant, origin=origin, **made)
    click.echo("\n".join(report.lines()))
    # 2. a version in the registry
    keys, values = {"network": network, "variant": variant}, {"architecture": own.architecture, "origin": origin}
    where: dict[str, Any] = {"inputs": {"file": file}, "experiment": params.tracking.experiment, "enabled": track}
    with tracking.run("import", keys=keys, params=values, **where) as run:
        run.outputs({"weights": stored})
    click.echo(f"stored      {stored}\nuse it      network.{network}.weights: {{{variant}: {stored}}}")


@weights.command()
@click.argument("file", type=FILE)
def show(file: Path) -> None:
    """Print the metadata of FILE, a weights file of ours, as JSON."""
    from meta_ood.models import checkpoint

    click.echo(json.dumps(checkpoint.read_metadata(file), indent=2, ensure_ascii=False))


@click.command()
@click.argument("source", type=PATH)
@click.option("--format", "kind", type=click.Choice(["onnx", "torch"]), default="onnx", help="torch: torch.export.")
@options.out_option("outputs/export", "Folder to write into.")
# half of a Cityscapes frame in each direction
@click.option("--size", type=(int, int), default=(512, 1024), help="Height and width at which latency is taken [px].")
@click.option("--frames", type=options.FOLDER, help="A prepared dataset: are the same segments found in its frames?")
@click.option("--count", default=20, help="How many of its frames.")
@click.option(
    "--int8", type=options.EXISTING_FOLDER, help="Photos like those of training: calibrate and write 8 bits too."
)
def export(
    source: Path, kind: str, out: Path, size: tuple[int, int], frames: Path | None, count: int, int8: Path | None
) -> None:
    """Write the network of a detector for another runtime, check it, and time it.

    SOURCE is a detector's folder (data/detectors/NETWORK/VARIANT), or a weights file; --frames and --int8 need the
    former. Exit code 3: some frames have other segments.
    """
    from meta_ood.data.files import file_hash
    from meta_ood.detector import export as exporting
    from meta_ood.detector.detector import Detector
    from meta_ood.detector.folder import WEIGHTS
    from meta_ood.models import checkpoint

    if int8 and kind != "onnx":
        raise click.UsageError("--int8 needs --format onnx")

    # 1. the network, of a detector or of a weights file
    detector = Detector.load(source, "cpu") if source.is_dir() else None
    if detector:
        network, name = detector.network, f"{detector.settings.network}-{detector.settings.variant}"
    elif frames is not None or int8 is not None:
        raise click.UsageError("--frames and --int8 need a detector's folder, not a weights file")
    else:
        network, made_of = checkpoint.load(source)
        name = f"{made_of['name']}-{made_of['variant']}"
    # 2. the export, with the logits of both
    path = out / f"{name}.{'onnx' if kind == 'onnx' else 'pt2'}"
    # a detector may resize what its network sees: other sizes do not reach it
    fixed = detector.settings.infer.size if detector else None
    run = exporting.export(network, path, fixed, file_hash(source / WEIGHTS if detector else source))
    difference = exporting.check(network, run, fixed)
    sizes = f"{fixed[0]} x {fixed[1]}" if fixed else "any height and width"
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {sizes}")
    click.echo(f"  largest difference of logits at {sizes if fixed else 'three sizes'}: {difference:.2g}")
    if detector is not None and int8 is not None:
        exact, path = path, path.with_stem(f"{path.stem}-int8")
        run = exporting.quantise(detector, exact, path, exporting.calibration_images(int8))
        click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, 8 bits: finds other segments, evaluate it before use")
    # 3. the segments of both in real frames
    other: tuple[str, ...] = ()
    if detector is not None and frames is not None:
        from meta_ood.data.frames import read_frames
        from meta_ood.data.images import read_image

        chosen = read_frames(frames, Path.cwd())[:count]
        images = [(frame.image_id, read_image(frame.image)) for frame in chosen]
        found = exporting.compare(detector, run, images)
        other = found.other
        click.echo(
            f"  {found.frames} frames of {frames.name}: logits differ by {found.logits:.2g} at most, {found.pixels} "
            f"pixels of the OoD mask differ; {found.segments} segments, the same in {found.frames - len(other)} frames"
        )
    # 4. the time
    height, width = fixed or size
    exported, own = (1e3 * exporting.latency(r, (height, width)) for r in (run, exporting.network_runner(network)))
    click.echo(f"  {height} x {width} on this CPU: {exported:.0f} ms per image, the network itself {own:.0f} ms")
    if other:
        click.echo(f"  other segments: {', '.join(other)}")
        raise SystemExit(3)
