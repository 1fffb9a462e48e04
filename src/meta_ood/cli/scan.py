"""Commands for many frames: drives, videos, archives."""

from pathlib import Path
from typing import Literal

import click

from meta_ood.cli import options
from meta_ood.cli.options import FILE, FOLDER

_inputs = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
_every = click.option("--every", type=click.IntRange(1), default=1, help="Take every n-th frame of each sequence.")


def _share(text: str) -> tuple[int, int]:
    """Return ``3/64`` as (3, 64)."""
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise click.UsageError(f"--shard {text}: expected K/N with 1 <= K <= N, such as 3/64")
    return int(k), int(n)


@click.command()
@_inputs
@_every
@click.option("--out", type=FILE, required=True, help="Parquet file.")
def manifest(inputs: tuple[str, ...], every: int, out: Path) -> None:
    """List the frames of images, folders, patterns, lists, tar archives and videos, for `meta-ood scan`.

    Addresses of object stores (s3://bucket/drives) work like paths, see docs/drives.md.
    """
    from meta_ood.detector.scan.manifest import make_manifest, write_manifest

    table = make_manifest(inputs, every)
    write_manifest(out, table)
    damaged = len(table) - table["error"].null_count
    click.echo(f"{len(table)} frames: {out}" + (f"; {damaged} inputs are damaged: column error" if damaged else ""))


@click.command()
@_inputs
@_every
@click.option("--detector", type=FOLDER, required=True, help="Folder of a detector: data/detectors/NETWORK/VARIANT.")
@options.out_option("outputs/scan", "Folder to write into.")
@click.option(
    "--pictures",
    type=click.Choice(["alarms", "all", "none"]),
    default="none",
    help="Masks and overlays: of frames with an alarm, of all, of none.",
)
@click.option("--features", is_flag=True, help="Keep the features of each segment.")
@click.option("--embeddings", is_flag=True, help="Keep what `similar` and `cluster` compare alarms by.")
@click.option("--frames-per-part", type=click.IntRange(1), default=100, help="Frames in a file of a table.")
@click.option("--shard", default="1/1", metavar="K/N", help="Do the K-th of N shares: of a job array.")
@click.option(
    "--runtime",
    default="torch",
    metavar="RUNTIME",
    help="What computes the network: torch, onnx (ONNX Runtime, CPU), or a file of `meta-ood export`, of 8 bits say.",
)
@click.option("--precision", type=click.Choice(["float32", "tf32", "bfloat16"]), help="Default: the detector's.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="Neighbours of one size that go through the network together."
)
@options.workers
@options.engine
@options.address
@options.device
@options.as_json
def scan(
    inputs: tuple[str, ...],
    every: int,
    detector: Path,
    out: Path,
    pictures: Literal["alarms", "all", "none"],
    features: bool,
    embeddings: bool,
    frames_per_part: int,
    shard: str,
    runtime: str,
    precision: Literal["float32", "tf32", "bfloat16"] | None,
    batch_size: int | None,
    workers: int,
    engine: str,
    address: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Find OoD segments in many frames: tables of frames and segments, and a contact sheet of the worst alarms.

    INPUTs are images, folders, patterns, lists, tar archives and videos, or one manifest of `meta-ood manifest`. Run it
    again after any kill to go on.

    Exit code 3: some frames could not be read; the others are done.
    """
    from meta_ood.data.context import Machine
    from meta_ood.detector.scan import tables
    from meta_ood.detector.scan.engine import prepare, run
    from meta_ood.detector.scan.manifest import make_manifest
    from meta_ood.detector.scan.summary import COUNTED, summarise, worst_alarms, write_sheet
    from meta_ood.detector.scan.task import Scan

    share = _share(shard)
    if runtime not in ("torch", "onnx") and not (runtime.endswith(".onnx") and Path(runtime).is_file()):
        raise click.UsageError(f"--runtime {runtime}: expected torch, onnx, or a file that ends with .onnx")
    # 1. what is to be done: reports wrong inputs before any process starts
    table = make_manifest(inputs, every)
    kept = (pictures, features, frames_per_part, embeddings)
    task = Scan(out, detector, device, *kept, runtime, precision, batch_size)
    promise = prepare(task, table).settings.promise
    # 2. the work
    seconds = run(task, table, Machine(device, workers, engine, address), share)
    # 3. what all finished parts say, also those of other shards
    counts, doubts = summarise(out, promise)
    parts, finished = -(-len(table) // frames_per_part), len(tables.finished_parts(out))
    sheet = write_sheet(out, worst_alarms(out)) if finished == parts else None
    found = "{frames} frames, {segments} segments, {removed} of them removed as false alarms".format_map(counts)
    lines = [f"{found}: {out}", f"{counts['alarm']} frames raise an alarm"]
    if promise:
        lines[-1] += f"; promised on ordinary frames: {promise.text}"
    lines += [f"check the promise: {doubt}" for doubt in doubts]
    if counts["unreadable"]:
        lines.append(f"{counts['unreadable']} frames could not be read: column error of {out / 'frames'}")
    if finished < parts:
        lines.append(f"{finished} of {parts} parts are finished, the others are those of other shards")
    if sheet:
        lines.append(f"the worst alarms: {sheet}")
    work = {step: value for step, value in seconds.items() if step != "decode"}
    if total := sum(work.values()):
        shares = ", ".join(f"{step} {value / total:.0%}" for step, value in work.items())
        lines.append(f"{total:.0f} s of work: {shares}; beside it {seconds.get('decode', 0):.0f} s of decoding")
    told = {"out": str(out), "parts": parts, "finished": finished, "doubts": doubts, "seconds": seconds}
    told |= {"promise": promise.text if promise else None, "sheet": str(sheet) if sheet else None}
    options.answer(as_json, {key: counts[key] for key in COUNTED} | told, "\n".join(lines))
    if counts["unreadable"]:
        raise SystemExit(3)
