"""``python -m meta_ood``: the command line, as DVC and MLflow start it."""

from meta_ood.cli import main

if __name__ == "__main__":
    main(prog_name="meta-ood")
