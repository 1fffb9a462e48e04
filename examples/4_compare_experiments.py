# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Compare experiments
#
# This page goes on in the project of [Train on your own data](3_train_on_own_data.py): does the weight λ of the OoD
# loss matter more than the seed? Two values, two seeds, so four trainings.

# %%
import csv
import json
import os
from pathlib import Path

os.chdir("outputs/examples/own_data")
os.environ["META_OOD_TRACKING"] = "off"  # no MLflow store for an example

# %% [markdown]
# ## Baseline and OoD-trained, on the same frames
#
# `meta-ood compare` puts the evaluations of one run side by side. The interval is that of the *difference*: both were
# evaluated on the same resampled scenes, so what is hard for both cancels. An interval that holds 0 may be chance.

# %%
from meta_ood.report.compare import pairs_text, read_experiments, spreads_text
from meta_ood.report.results import read_evaluations

print(pairs_text(read_evaluations(Path("data/evaluate"))))

# %% [markdown]
# ## Four experiments
#
# In a git repository with DVC this is one line, and each experiment keeps its outputs:
# `dvc exp run --queue -S train.ood_weight=0.5,0.9 -S seed=1,2`, then `dvc queue start` and
# `dvc exp show --csv > sweep.csv` ([Sweep](../docs/sweeps.md)). Here the stages are called one by one, and a table of
# the same form is written.

# %%
from meta_ood.cli import main


def run(stage: str, *settings: str, **keys: str) -> None:
    """Run ``meta-ood STAGE --KEY VALUE ... --set SETTING ...``."""
    options = [text for key, value in keys.items() for text in (f"--{key}", value)]
    options += [text for setting in settings for text in ("--set", setting)]
    main(["--quiet", stage, *options], standalone_mode=False)


cell = {"network": "small", "variant": "ood_trained"}
lines = []
for weight in ("0.5", "0.9"):
    for seed in ("1", "2"):
        # half the epochs, for this page's sake
        run("train", f"seed={seed}", f"train.ood_weight={weight}", "train.epochs=4", network="small")
        run("statistics", **cell)
        for stage in ("infer", "segments"):
            run(stage, **cell, dataset="my_test")
        run("meta", f"seed={seed}", **cell)
        run("evaluate", f"seed={seed}", **cell, dataset="my_test")
        place = "data/evaluate/small/ood_trained/my_test/summary.json"
        metrics = json.loads(Path(place).read_text(encoding="utf-8"))
        values = {f"{place}:{name}": value for name, value in metrics.items()}
        lines.append({"train.ood_weight": weight, "seed": seed, **values})
columns = list(dict.fromkeys(name for line in lines for name in line))
with Path("sweep.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, columns, restval="")
    writer.writeheader()
    writer.writerows(lines)

# %% [markdown]
# ## Mean and spread over seeds
#
# `meta-ood compare --experiments sweep.csv`. A difference between two settings that is smaller than the spread between
# seeds says nothing; two seeds are the least that show a spread at all.

# %%
settings = read_experiments(Path("sweep.csv").read_text(encoding="utf-8"))
print(spreads_text(settings))

# %% [markdown]
# ## What it costs
#
# `meta-ood pareto sweep.csv` plots AUPRC against the mIoU of the known classes and marks the settings that no other one
# beats in both; `meta-ood report --experiments sweep.csv --out outputs` adds the table to the report.

# %%
from meta_ood.report.page import pareto_page

Path("pareto.html").write_text(pareto_page("λ on my data", settings), encoding="utf-8")
print(f"{Path('pareto.html').stat().st_size / 1000:.0f} kB in pareto.html")
