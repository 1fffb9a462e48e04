"""``meta-ood networks``: which architectures can be built, and what they cost."""

from __future__ import annotations

import click


@click.command(help="List the architectures that params.yaml may name, and what they cost.")
def networks() -> None:
    """Print a table, 19 classes, one frame of 1024 x 2048."""
    from meta_ood.models import MODELS, catalogue

    height, width = catalogue.FRAME
    click.echo(f"{'architecture':<44} {'parameters':>12} {'stride':>6} {'GFLOP':>8} {'memory':>8}")
    for name in MODELS:
        facts = catalogue.network_facts(name)
        memory = catalogue.PEAK_MEMORY_GB.get(name)
        click.echo(
            f"{name:<44} {facts.parameters:>12,} {facts.output_stride:>6} {facts.gflop:>8,.0f} "
            f"{f'{memory:.1f} GB' if memory else '-':>8}"
        )
    click.echo(
        f"GFLOP and peak memory (CPU, float32, measured by benchmarks/networks.py): one frame of "
        f"{height} x {width}.\nAny other: architecture: package.module:builder, see "
        "docs/extending.md."
    )
