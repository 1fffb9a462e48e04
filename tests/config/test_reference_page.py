"""The page of params.yaml in the site, which is made of the schema."""

import importlib.util

import yaml

from demo_world import REPOSITORY
from meta_ood import config


def test_page_has_every_key_of_params_yaml_once():
    place = REPOSITORY / "docs/site/reference.py"
    spec = importlib.util.spec_from_file_location("reference", place)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    rows = [line.split("`")[1] for line in reference.parameters().splitlines() if line.startswith("| `")]
    assert len(rows) == len(set(rows))
    values = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for section in ("datasets", "network"):
        values[section] = {"<name>": next(iter(values[section].values()))}
    for key in config.flat(values):
        # options and the values that networks have of their own are free
        known = [row for row in rows if key == row or key.startswith(f"{row}.")]
        assert len(known) == 1, key
