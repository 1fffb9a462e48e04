"""Commands for many frames: drives, videos, archives."""

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from meta_ood.cli import options
from meta_ood.cli.options import EXISTING_FOLDER, FILE, FOLDER

if TYPE_CHECKING:
    from meta_ood.detector.scan.tracks import Rule

_inputs = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
_video = click.option("--video", is_flag=True, help="Write the frames with the boxes of alarms as alarms.mp4.")
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
@_video
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
    video: bool,
    workers: int,
    engine: str,
    address: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Find OoD segments in many frames: tables of frames, segments and tracks, and a contact sheet of the worst alarms.

    INPUTs are images, folders, patterns, lists, tar archives and videos, or one manifest of `meta-ood manifest`. Run it
    again after any kill to go on.

    Exit code 3: some frames could not be read; the others are done.
    """
    from meta_ood.data.context import Machine
    from meta_ood.detector.scan import tables
    from meta_ood.detector.scan.engine import prepare, run
    from meta_ood.detector.scan.manifest import make_manifest
    from meta_ood.detector.scan.summary import COUNTED, summarise
    from meta_ood.detector.scan.task import Scan
    from meta_ood.detector.scan.tracks import rule_of

    share = _share(shard)
    if runtime not in ("torch", "onnx") and not (runtime.endswith(".onnx") and Path(runtime).is_file()):
        raise click.UsageError(f"--runtime {runtime}: expected torch, onnx, or a file that ends with .onnx")
    if video:
        import_module("av")  # a missing one is reported before the work
    # 1. what is to be done: reports wrong inputs before any process starts
    table = make_manifest(inputs, every)
    kept = (pictures, features, frames_per_part, embeddings)
    task = Scan(out, detector, device, *kept, runtime, precision, batch_size)
    promise = prepare(task, table).settings.promise
    # 2. the work
    on = device if runtime == "torch" else "cpu"  # else workers of ray would wait for GPUs
    seconds = run(task, table, Machine(on, workers, engine, address), share)
    # 3. what all finished parts say, also those of other shards
    counts, doubts = summarise(out, promise)
    parts, finished = -(-len(table) // frames_per_part), len(tables.finished_parts(out))
    told: dict[str, Any] = {"out": str(out), "parts": parts, "finished": finished, "doubts": doubts, "seconds": seconds}
    told |= {"promise": promise.text if promise else None, "sheet": None}
    found = "{frames} frames, {segments} segments, {removed} of them removed as false alarms".format_map(counts)
    lines = [f"{found}: {out}", f"{counts['alarm']} frames raise an alarm"]
    if promise:
        lines[-1] += f"; promised on ordinary frames: {promise.text}"
    lines += [f"check the promise: {doubt}" for doubt in doubts]
    if counts["unreadable"]:
        lines.append(f"{counts['unreadable']} frames could not be read: column error of {out / 'frames'}")
    if finished < parts:
        lines.append(f"{finished} of {parts} parts are finished, the others are those of other shards")
    else:
        linked, more = _write_tracks(out, rule_of(out), video)
        told |= linked
        lines += more
    work = {step: value for step, value in seconds.items() if step != "decode"}
    if total := sum(work.values()):
        shares = ", ".join(f"{step} {value / total:.0%}" for step, value in work.items())
        lines.append(f"{total:.0f} s of work: {shares}; beside it {seconds.get('decode', 0):.0f} s of decoding")
    options.answer(as_json, {key: counts[key] for key in COUNTED} | told, "\n".join(lines))
    if counts["unreadable"]:
        raise SystemExit(3)


@click.command()
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--gap", type=click.IntRange(0), help="Frames in which a track may be missed, one after another.")
@click.option("--overlap", type=click.FloatRange(0, 1, min_open=True), help="The least IoU with the predicted box.")
@click.option("--needed", type=click.IntRange(1), help="An alarm needs so many segments that count in --window frames.")
@click.option("--window", type=click.IntRange(1), help="[frames]")
@click.option("--severity", type=float, help="A segment counts from this severity on; without it, if it is kept.")
@_video
@options.as_json
def tracks(folder: Path, video: bool, as_json: bool, **given: float | None) -> None:
    """Link the segments of a finished scan to tracks again, with another rule for alarms.

    FOLDER is that of `meta-ood scan`, which does the same at its end. Writes tables of tracks and of temporal features,
    and the contact sheet; a rule that is not the default stays with the folder.
    """
    from meta_ood.detector.scan.tracks import Rule

    rule = Rule(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if rule.needed > rule.window:
        raise click.UsageError(f"--needed {rule.needed} segments cannot lie in --window {rule.window} frames")
    told, lines = _write_tracks(folder, rule, video)
    options.answer(as_json, told, "\n".join(lines))


def _write_tracks(out: Path, rule: "Rule", video: bool) -> tuple[dict[str, Any], list[str]]:
    """Write tracks, contact sheet and video of a finished scan; return what they are as JSON and as lines."""
    from meta_ood.detector.scan.summary import worst_alarms, write_sheet
    from meta_ood.detector.scan.tracks import link
    from meta_ood.detector.scan.video import write_video

    counts = link(out, rule)
    sheet = write_sheet(out, worst_alarms(out))
    lines = [f"{counts['tracks']} tracks, {counts['alarms']} of them are alarms"]
    if counts["minutes"]:
        lines[0] += (
            f": {counts['alarms_per_minute']:.3g} a minute; {counts['alarm_frames_per_minute']:.3g} frames a minute "
            "have a kept segment"
        )
    lines += [f"the worst alarms: {sheet}"] if sheet else []
    lines += [f"their video: {path}"] if video and (path := write_video(out)) else []
    return {"tracks": counts, "rule": asdict(rule), "sheet": str(sheet) if sheet else None}, lines
