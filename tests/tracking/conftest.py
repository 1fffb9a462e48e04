from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meta_ood.tracking import store

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A new store's database; making one takes seconds, so tests copy it."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store.open_store(root)
    return root / "mlflow.db"


@pytest.fixture
def work(tmp_path, monkeypatch, empty_database):
    """Be in a project with params.yaml and an empty store."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("META_OOD_TRACKING", "on")
    monkeypatch.chdir(tmp_path)
    shutil.copy(PARAMS, "params.yaml")
    shutil.copy(empty_database, "mlflow.db")
    return tmp_path
