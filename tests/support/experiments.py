"""What ``dvc exp show --csv`` prints: a workspace, a commit, three experiments, two seeds."""

_HEAD = (
    "Experiment,rev,typ,Created,parent,"
    "data/evaluate/mini/baseline/fs/summary.json:auprc,"
    "data/evaluate/mini/baseline/val/summary.json:miou,"
    "data/evaluate/mini/ood_trained/fs/summary.json:auprc,"
    "data/evaluate/mini/ood_trained/fs/metrics.json:scores.energy.auprc,"
    "data/evaluate/mini/ood_trained/val/summary.json:auprc,"
    "data/evaluate/mini/ood_trained/val/summary.json:miou,"
    "data/networks/mini/baseline.json:miou,separation,seed,train.ood_weight,pretrain.epochs,"
    "data/networks/mini/ood_trained.safetensors,data/evaluate,src/meta_ood/losses.py\n"
)
_ROWS = (
    ",workspace,baseline,,,0.3,0.80,0.31,0.1,,0.79,0.9,0.80,0,0.1,4,0a0,0b0.dir,0c\n"
    ",main,baseline,2026-01-01T00:00:00,,0.3,0.80,0.60,0.1,,0.70,0.9,0.81,0,0.9,4,1a1,1b1.dir,1c\n"
    "a,1,branch_commit,2026-01-01T00:00:00,,0.3,0.80,0.31,0.1,,0.79,0.9,0.82,0,0.1,4,2a2,2b2.dir,2c\n"
    "b,2,branch_commit,2026-01-01T00:00:00,,0.3,0.80,0.50,0.1,,0.74,0.9,0.83,1,0.9,4,3a3,3b3.dir,3c\n"
    "c,3,branch_base,2026-01-01T00:00:00,,0.3,0.80,0.30,0.1,,0.60,0.9,0.84,0,0.5,4,4a4,4b4.dir,4c\n"
)
EXPERIMENTS_CSV = _HEAD + _ROWS
