"""``meta-ood serve``: a detector behind HTTP."""

from __future__ import annotations

import click


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5001, show_default=True, help="Port to listen on.")
def serve(model: str, host: str, port: int) -> None:
    """Answer images with OoD segments over HTTP; the protocol is that of `mlflow models serve`.

    MODEL is what MLflow calls a model URI, such as models:/deeplabv3plus_mini@champion. Limits of
    a request are environment variables, see docs/operations.md.
    """
    import uvicorn

    from meta_ood.tracking import served

    uvicorn.run(served.application(model), host=host, port=port, log_level="warning")
