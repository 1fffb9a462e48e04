"""``meta-ood export``: networks for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "torch"]),
    default="onnx",
    show_default=True,
    help="ONNX, or a torch.export program (.pt2).",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("outputs/export"),
    show_default=True,
    help="Folder to write into.",
)
@click.option(
    "--size",
    type=(int, int),
    default=(512, 1024),
    show_default=True,
    help="Height and width at which latency is measured [px].",
)
@click.option(
    "--frames",
    type=click.Path(file_okay=False, path_type=Path),
    help="A prepared dataset in whose frames the detector must find the same segments.",
)
@click.option("--count", default=20, show_default=True, help="How many of its frames.")
def export(
    source: Path, kind: str, out: Path, size: tuple[int, int], frames: Path | None, count: int
) -> None:
    """Write the network of a detector for another runtime, check it, and time it.

    SOURCE is a detector's folder (data/detectors/NETWORK/VARIANT), or a weights file; --frames
    needs the former. Exit code 3: some frames have other segments.
    """
    from meta_ood.detector import export as exporting
    from meta_ood.detector.detector import Detector
    from meta_ood.models import checkpoint

    detector = Detector.load(source, "cpu") if source.is_dir() else None
    if detector is not None:
        network, settings = detector.network, detector.settings
        name = f"{settings.network}-{settings.variant}"
    elif frames is not None:
        raise click.UsageError("--frames needs a detector's folder, not a weights file")
    else:
        network, made_of = checkpoint.load(source)
        name = f"{made_of['name']}-{made_of['variant']}"
    if kind == "onnx":
        path = out / f"{name}.onnx"
        exporting.export_onnx(network, path)
        run = exporting.onnx_runner(path)
    else:
        path = out / f"{name}.pt2"
        exporting.export_program(network, path)
        run = exporting.program_runner(path)
    difference = exporting.check(network, run)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, any height and width")
    click.echo(f"  largest difference of logits at three sizes: {difference:.2g}")
    other: tuple[str, ...] = ()
    if detector is not None and frames is not None:
        from meta_ood.data.frames import read_frames
        from meta_ood.data.images import read_image

        chosen = read_frames(frames, Path.cwd())[:count]
        images = [(frame.image_id, read_image(frame.image)) for frame in chosen]
        found = exporting.compare(detector, run, images)
        other = found.other
        click.echo(
            f"  {found.frames} frames of {frames.name}: logits differ by {found.logits:.2g} at "
            f"most, {found.pixels} pixels of the OoD mask differ; {found.segments} segments, "
            f"the same in {found.frames - len(other)} frames"
        )
    seconds = exporting.latency(network, run, size)
    click.echo(
        f"  {size[0]} x {size[1]} on this CPU: {seconds.exported * 1e3:.0f} ms per image, "
        f"the network itself {seconds.network * 1e3:.0f} ms"
    )
    if other:
        click.echo(f"  other segments: {', '.join(other)}")
        raise SystemExit(3)
