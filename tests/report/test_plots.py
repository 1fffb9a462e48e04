"""Plots: parsed as XML, the same bytes again, descriptions with the values."""

import re
from xml.etree import ElementTree

import pytest

from evaluation_folder import DATASETS, NETWORKS, VARIANTS, write_evaluation
from meta_ood.report import plots
from meta_ood.report.results import read_results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    write_evaluation(root, pictures=0)
    return read_results(root, NETWORKS, VARIANTS, DATASETS)


def test_curves_are_drawn_where_they_exist(results):
    found = {(group[0].dataset, plot.title): plot for group in results.groups for plot in plots.curve_plots(group, "c")}
    of_ood = {title for dataset, title in found if dataset == "lost_and_found"}
    assert of_ood == {
        "ROC, AUROC",
        "Precision-recall, AUPRC",
        "Scores of pixels",
        "Errors of segments",
        "Reliability: meta classifier",
    }
    assert [t for d, t in found if d == "cityscapes_val"] == ["Reliability: known classes"]
    # ten segments a tenth off, and twenty a tenth off before OoD training only
    words = found["lost_and_found", "Reliability: meta classifier"].description
    assert "baseline: 7.5 %; ood_trained: 2.5 %" in words


def test_svg_is_well_formed_with_unique_ids_and_roles(results):
    first = plots.curve_plots(results.groups[0], "a") + plots.curve_plots(results.groups[0], "b")
    again = plots.curve_plots(results.groups[0], "a")
    assert [plot.contents for plot in again] == [plot.contents for plot in first[: len(again)]]
    ids = []
    for plot in first:
        names = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
        tree = ElementTree.fromstring(f"<svg {names}>{plot.contents}</svg>")
        ids += [node.get("id") for node in tree.iter() if node.get("id")]
        # style.css colours texts by this role; one outside of it would be dark on dark
        coloured = {text for g in tree.iter() if g.get("id", "").endswith("-ink") for text in g.iter()}
        assert set(tree.iter("text")) <= coloured
        assert any(node.tag == "text" for node in coloured)
    assert len(ids) == len(set(ids))
    assert any(re.search(r"-grid$", name) for name in ids)


def test_cost_is_plotted_for_networks_with_both_metrics(results):
    found = plots.cost_plots(results, "cost")
    assert [plot.title for plot in found] == list(DATASETS[:2])
    for plot in found:
        assert all(f"{network}: mIoU" in plot.description for network in NETWORKS)
