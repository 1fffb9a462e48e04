"""Every command of README, docs and examples is known to its program, with all its options and parameter keys.

The quick ones run here. The table below says of the others who runs them, or why nobody does.
"""

import itertools
import re
import shlex
import tomllib
import warnings

import click
import pytest
import yaml

from demo_world import REPOSITORY
from meta_ood import config
from meta_ood.cli import main

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "data/README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "examples").glob("*.py")),
]

RUN_HERE = ("meta-ood --help", "meta-ood detect --demo", "meta-ood doctor", "meta-ood completion bash")

# beginning of a command in a block -> who runs it, or why nobody does
ELSEWHERE = {
    "make setup": ".ci/run, by make demo and make test",
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "make lint test": ".ci/run, one after the other",
    "make ui": "serves until it is stopped; tests/tracking tests the address and the store",
    ". .venv/bin/activate": "changes the shell",
    "pre-commit install": "writes git hooks",
    "pip install": "the wheels are installed by .github/workflows/wheels.yml",
    "cp configs/paper.yaml": "a copy; tests/config loads every file of configs",
    "export": "sets the environment of the shell",
    "dvc repro": ".ci/run, by make demo",
    "dvc --wait-for-lock": ".ci/run, by make demo",
    "dvc exp": "minutes; the examples compare experiments without DVC's queue",
    "dvc queue": "as dvc exp",
    "dvc plots": "minutes: needs an experiment; meta-ood report --compare is tested in tests/report",
    "dvc remote": "tests/tracking/test_services.py: make test-services",
    "dvc push": "as dvc remote",
    "mlflow run": "tests/tracking/test_start_methods.py: make test-services",
    "mlflow models": "tests/tracking serves a packed model in its process; minutes with an environment of its own",
    "mlflow server": "tests/tracking/test_services.py: make test-services",
    "meta-ood pretrain": ".ci/run, by make demo; examples/3",
    "meta-ood train": ".ci/run, by make demo; examples/3",
    "meta-ood report": ".ci/run, by make demo; examples/3",
    "meta-ood detect": "tests/detector, on other images",
    "meta-ood manifest": "tests/detector, on other images",
    "meta-ood scan": "as meta-ood manifest",
    "meta-ood tracks": "tests/detector, on a scan of other images",
    "meta-ood similar": "as meta-ood tracks",
    "meta-ood cluster": "as meta-ood tracks",
    "meta-ood serve": "serves until it is stopped; tests/detector asks it in its process",
    "meta-ood export": "tests/detector",
    "meta-ood promote": "tests/tracking",
    "meta-ood lineage": "tests/tracking",
    "meta-ood sync": "tests/tracking; .ci/run, by make demo",
    "meta-ood reproduce": "tests/tracking",
    "meta-ood evaluate --": ".ci/run, by make demo",
    "meta-ood evaluate-maps": "tests/evaluation; examples/2",
    "meta-ood compare": "tests/report; examples/4",
    "meta-ood compare-meta": "tests/report",
    "meta-ood pareto": "tests/report; examples/4",
    "meta-ood data": "tests/cli/test_data.py, on miniatures",
    "meta-ood weights": "tests/cli/test_weights.py, on weights of its own",
    "docker": ".github/workflows/ci.yml; there is no container runtime where the tests run",
    "curl": "needs a running server; tests/detector sends the same bodies",
    "printf": "as curl",
    "base64": "as curl",
    "first=": "needs SLURM",
    "srun": "needs SLURM; tests/training starts two processes",
    "ray start": "needs several machines; the tests start ray on one",
    "torchrun": "tests/training starts two processes",
}


def blocks(page):
    """Yield (language, text) of the fenced blocks of a page; of an example, of its comments."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    opened, lines = None, []
    for line in text.splitlines():
        if fence := re.match(r" *```(\w*)$", line):
            if opened is None:
                opened, lines = fence[1], []
            else:
                yield opened, "\n".join(lines)
                opened = None
        elif opened is not None:
            lines.append(line)


def in_blocks():
    """Return the words of each command in a shell block, without comments, pipes and redirections."""
    found = []
    for page in PAGES:
        for language, text in blocks(page):
            if language in ("sh", "bash") or (not language and text.startswith("meta-ood ")):
                found += commands(text)
    return found


def in_sentences():
    """Return the words of each `command` between backticks outside of blocks."""
    programs = r"meta-ood|dvc (?:repro|exp|queue|metrics)|make|mlflow (?:run|models)|python (?:benchmarks|docs)"
    found = []
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"\n# ?", "\n", text) if page.suffix == ".py" else text
        for span in re.findall(rf"`((?:{programs})(?: [^`]*)?)`", text):
            found += commands(" ".join(span.replace("\\|", "|").split()))
    return found


def commands(text):
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$\(.*\)", "", re.sub(r'^eval "\$\((.*)\)"', r"\1", line))
        words = shlex.shlex(re.sub(r"(?<=\s)\[|\](?=\s|…|$)", "", line), posix=True, punctuation_chars="|;<>{}")
        words.whitespace_split = True
        for is_sign, part in itertools.groupby(words, lambda word: set(word) <= set("|;<>{}")):
            command = list(part)
            while len(command) > 1 and re.match(r"[A-Z_]+=", command[0]):
                command = command[1:]
            if not is_sign and not re.match(r"[\w./-]+\.(csv|jpg)$", command[0]):
                found.append(command)
    return found


def parse(program, words, is_complete):
    """Let click read the words; files that they name need not be there, and in a sentence words may be left out."""
    context = click.Context(program)
    if "STAGE" in words:
        return
    while isinstance(program, click.Group) and words and words[0] != "…" and not words[0].startswith("-"):
        name, program, words = program.resolve_command(context, words)
        try:
            context = program.make_context(name, list(words), parent=context)
        except click.exceptions.Exit:  # --help
            return
        except click.UsageError as error:
            is_missing = not is_complete and not isinstance(error, click.NoSuchOption)
            if not is_missing and "does not exist" not in str(error):
                raise
            if not isinstance(program, click.Group):
                return


@pytest.fixture(scope="module")
def programs():
    """Give for each program what checks the words behind it; a wrong one raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their own, when they are imported
        from dvc.cli.parser import get_main_parser
        from mlflow.cli import cli as mlflow
        from torch.distributed.run import get_args_parser

    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = yaml.safe_load((REPOSITORY / "MLproject").read_text(encoding="utf-8"))["entry_points"]

    def of_dvc(words, is_complete):
        if is_complete:
            get_main_parser().parse_args(words)

    def of_mlflow(words, is_complete):
        parse(mlflow, words, is_complete)
        assert "-e" not in words[:-1] or words[words.index("-e") + 1] in entries

    def of_pip(words, is_complete):
        for extra in re.findall(r"meta-ood\[(\w+)", " ".join(words)):
            assert extra in extras["optional-dependencies"]

    def of_torchrun(words, is_complete):
        known = get_args_parser().parse_args(words)
        assert known.training_script == "meta_ood"
        parse(main, known.training_script_args, is_complete)

    def of_python(words, is_complete):
        if words[:2] == ["-m", "meta_ood"]:
            parse(main, words[2:], is_complete)
        else:
            assert (REPOSITORY / words[0]).is_file()

    return {
        "meta-ood": lambda words, is_complete: parse(main, words, is_complete),
        "make": lambda words, _: {word for word in words if "=" not in word} <= targets or pytest.fail(str(words)),
        "cp": lambda words, _: (REPOSITORY / words[0]).is_file() or pytest.fail(words[0]),
        "dvc": of_dvc,
        "mlflow": of_mlflow,
        "pip": of_pip,
        "torchrun": of_torchrun,
        "srun": lambda words, is_complete: of_torchrun(words[1:], is_complete),
        "python": of_python,
    }


@pytest.mark.parametrize(("find", "is_complete"), [(in_blocks, True), (in_sentences, False)])
def test_commands_and_options_exist(programs, find, is_complete):
    found = find()
    assert len(found) > 50
    wrong = []
    for program, *words in found:
        try:
            programs.get(program, lambda *_: None)(words, is_complete)
        except (Exception, SystemExit) as error:
            wrong.append(f"{program} {' '.join(words)}: {error!r}")
    assert not wrong, "\n".join(wrong)


def test_parameter_keys_exist():
    changed = [
        word.removeprefix("set=")
        for command in in_blocks() + in_sentences()
        for option, word in itertools.pairwise(command)
        if option in ("--set", "-S") or word.startswith("set=")
    ]
    assert len(changed) > 10
    for word in changed:
        key, _, value = word.partition("=")
        if key in ("KEY", "SETTING"):
            continue
        # of several values, as `dvc exp run` takes them, the first
        first = re.sub(r"range\((\d+).*", r"\1", value.split(",")[0])
        config.load(REPOSITORY / "params.yaml", [f"{key}={first}"])


def test_each_command_runs_here_or_has_a_reason():
    found = [" ".join(command) for command in in_blocks()]
    found = [re.sub(r"^python -m meta_ood|^meta_ood", "meta-ood", command) for command in found]
    rest = [command for command in found if command not in RUN_HERE]
    without = [command for command in rest if not command.startswith(tuple(ELSEWHERE))]
    assert not without, without
    unused = [begin for begin in ELSEWHERE if not any(command.startswith(begin) for command in rest)]
    assert not unused, unused
    assert set(RUN_HERE) <= set(found)


@pytest.mark.parametrize("command", RUN_HERE)
def test_it_runs(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert main(shlex.split(command)[1:], standalone_mode=False) in (None, 0)
    assert capsys.readouterr().out


def test_python_blocks_name_what_exists():
    imports = [
        line
        for page in PAGES
        for language, text in blocks(page)
        if language == "python"
        for line in text.splitlines()
        if re.match(r"from meta_ood|import meta_ood", line)
    ]
    assert len(imports) > 5
    for line in imports:
        exec(line, {})
