"""What to do after an error: the last line of every one, after the message of the code that found it."""

import errno
import re

# folder below data/ -> the stage that writes it
_FOLDERS = {
    name: name for name in ("prepare", "statistics", "infer", "segments", "meta", "evaluate", "report", "code", "roles")
}
_FOLDERS |= {"raw/demo": "synthesize", "networks": "train", "detectors": "detector"}
_OUTPUT = re.compile(rf"\bdata/({'|'.join(_FOLDERS)})\b")

# package that may be missing -> what it is needed for, and the extra of meta-ood that brings it
OPTIONAL = {
    "mlflow": ("tracking, the registry of models, serve", "mlflow"),
    "dvc": ("dvc repro", "dvc"),
    "pycocotools": ("the reader coco", "pycocotools"),
    "onnx": ("export to ONNX", "meta-ood[export]"),
    "onnxruntime": ("the check of an ONNX file", "meta-ood[export]"),
    "transformers": ("networks of Hugging Face", "meta-ood[transformers]"),
    "segmentation_models_pytorch": ("the networks smp/…", "meta-ood[smp]"),
    "timm": ("the networks timm/…", "meta-ood[timm]"),
    "pyarrow": ("manifest, scan", "pyarrow"),
    "ray": ("--engine ray", "meta-ood[ray]"),
    "av": ("videos", "meta-ood[video]"),
    "fsspec": ("addresses such as s3://…", "fsspec"),
    "s3fs": ("addresses s3://…", "meta-ood[s3]"),
    "psycopg": ("a tracking store in PostgreSQL", "meta-ood[server]"),
    "boto3": ("artifacts in S3", "meta-ood[server]"),
}


def missing_package(error: ImportError) -> str | None:
    """Return what to say of a package that is not installed; None if it is none of the optional ones."""
    name = (error.name or "").split(".")[0]
    if name not in OPTIONAL:
        return None
    purpose, source = OPTIONAL[name]
    return f"{name} is not installed; it is needed for {purpose}: pip install '{source}'"


def remedy(error: Exception, command: str) -> str:
    """Return what to try after an error of ``meta-ood COMMAND``.

    Examples:
        >>> remedy(ValueError("data/segments/a/b/c.h5: damaged"), "evaluate")
        '`dvc repro segments` makes it again; `dvc checkout` brings back outputs that were changed by hand'
    """
    # 1. what kind of error it is
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, then run the same command again: what is done is kept"
    if getattr(error, "errno", None) == errno.ENOMEM:
        return (
            "a smaller batch (--batch-size, --set infer.batch_size=1) or fewer --workers need less, so does infer.tile"
        )
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return "give your user the right to it, or choose another folder (--out)"
    if type(error).__name__ == "ConfigError":
        return "correct it in the params file or in --set; `meta-ood STAGE --help` lists the keys and what they take"
    if type(error).__module__ == "mlflow.exceptions" or type(error).__name__ == "TrackingError":
        return "`meta-ood doctor` tests the tracking store; META_OOD_TRACKING=off runs stages without one"
    if type(error).__name__ == "CheckpointError":
        return "`meta-ood weights import` turns released weights into ours, `meta-ood weights show` reads ours"
    # 2. an output of a stage, or the raw data
    if found := _OUTPUT.search(str(error)):
        stage = _FOLDERS[found[1]]
        return f"`dvc repro {stage}` makes it again; `dvc checkout` brings back outputs that were changed by hand"
    if command in ("prepare", "data"):
        return "`meta-ood data check` finds all that is wrong; docs/datasets.md shows the layouts"
    # 3. what a user gave
    return f"`meta-ood {command} --help` says what is expected, `meta-ood -v {command} …` where the error arose"
