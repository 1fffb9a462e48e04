"""Where the repository and its store are. Imports no mlflow."""

import os
import re
from pathlib import Path


class TrackingError(ValueError):
    """The tracking store cannot be used; the message says what to do."""


def root() -> Path:
    """Return the repository's root: DVC's if DVC started us, else the parent with params.yaml."""
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "params.yaml").is_file()), here)


def store_uri(root: Path) -> str:
    """Return the store's address: MLFLOW_TRACKING_URI, else a database below `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for a server or another database."""
    _, found, path = uri.partition("sqlite:///")
    return Path(path) if found and path else None


def without_password(text: str) -> str:
    """Return `text` with ``***`` in place of the name and password of each address."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)


def short_reason(error: BaseException) -> str:
    """Return the type and the first line of an error, short and without passwords."""
    if isinstance(error, TrackingError):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {without_password(lines[0])[:300]}"
