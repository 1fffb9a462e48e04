"""``meta-ood export``: networks for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("weights", type=click.Path(dir_okay=False, path_type=Path))
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
    help="A prepared dataset whose frames must give the same segments.",
)
@click.option("--count", default=20, show_default=True, help="How many of its frames.")
@click.option(
    "--params",
    "params_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The params file: score and threshold of the segments.",
)
def export(
    weights: Path,
    kind: str,
    out: Path,
    size: tuple[int, int],
    frames: Path | None,
    count: int,
    params_file: Path,
) -> None:
    """Write the network of a weights file for another runtime, check it, and time it.

    Exit code 3: some frames have other segments.
    """
    from meta_ood.detector import export as exporting
    from meta_ood.models import checkpoint

    network, made_of = checkpoint.load(weights)
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
    if frames is not None:
        from meta_ood import config
        from meta_ood.data.frames import read_frames

        chosen = read_frames(frames, Path.cwd())[:count]
        segments = config.load(params_file).segments
        found = exporting.compare(network, run, chosen, segments.score, segments.threshold)
        other = found.other
        click.echo(
            f"  {found.frames} frames of {frames.name}: logits differ by {found.logits:.2g} at "
            f"most, {found.pixels} pixels of the OoD mask differ; {found.segments} segments, "
            f"the same in {found.frames - len(other)} frames"
        )
    seconds = exporting.latency(network, run, size)
    click.echo(
        f"  {size[0]} x {size[1]} on this CPU: {seconds.exported * 1e3:.0f} ms a frame, "
        f"the network itself {seconds.network * 1e3:.0f} ms"
    )
    if other:
        click.echo(f"  other segments: {', '.join(other)}")
        raise SystemExit(3)
