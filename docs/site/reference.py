"""Pages of the reference, made of the code: commands, params.yaml, Python."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

import meta_ood
from meta_ood import cli, config
from meta_ood.config.errors import expected


def command_line() -> str:
    """Return every command with its options, as click knows them."""
    context = click.Context(cli.main, info_name="meta-ood", **cli.main.context_settings)
    lines = ["# Command line", "", _text(cli.main), "", *_options(cli.main, context)]
    groups = {"Stages": list(cli.STAGES), **cli.GROUPS}
    for purpose, names in groups.items():
        lines += ["", f"## {purpose}"]
        for name in names:
            command = cli.main.get_command(context, name)
            assert command is not None, name
            lines += _command(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(lines)


def _command(command: click.Command, context: click.Context) -> list[str]:
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = ["", f"### {context.command_path}", "", _text(command), "", "```", usage, "```", ""]
    lines += _options(command, context)
    for name, child in getattr(command, "commands", {}).items():
        lines += _command(child, click.Context(child, info_name=name, parent=context))
    return lines


def _text(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\f")[0].replace("\b\n", "")


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    rows = [f"| `{names}` | {_cell(text)} |" for names, text in records]
    return ["| option | meaning |", "| --- | --- |", *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def parameters() -> str:
    """Return every key of params.yaml with its type, range and default, as the schema has them."""
    lines = [
        "# params.yaml",
        "",
        "Every key, as `meta_ood.config.schema` has it. A wrong key, type or range is an error that names it. "
        "`--set KEY=VALUE` changes a value for one command, `dvc exp run -S KEY=VALUE` for an experiment. "
        "`<name>` stands for a name that you choose. Where there is no default, the key must be there.",
    ]
    sections = [(name, _model_of(field.annotation)) for name, field in config.Params.model_fields.items()]
    plain = [name for name, (model, _) in sections if model is None]
    lines += ["", "## The whole file", "", *_table(config.Params, "", plain)]
    for name, (model, many) in sections:
        if model is not None:
            lines += _section(model, f"{name}.<name>" if many else name)
    return "\n".join(lines)


def _section(model: type[BaseModel], key: str) -> list[str]:
    inner = [(name, _model_of(field.annotation)) for name, field in model.model_fields.items()]
    own = [name for name, (child, _) in inner if child is None or key == "roles"]
    lines = ["", f"## `{key}`", "", inspect.cleandoc(model.__doc__ or ""), "", *_table(model, f"{key}.", own)]
    for name, (child, _) in inner:
        if child is not None and name not in own:
            lines += _section(child, f"{key}.{name}")
    return lines


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the section that a field holds, and whether it holds one for each name."""
    for part in (annotation, *typing.get_args(annotation)):
        if inspect.isclass(part) and issubclass(part, BaseModel):
            return part, typing.get_origin(annotation) is dict
    return None, False


def _table(model: type[BaseModel], prefix: str, names: list[str]) -> list[str]:
    rows = ["| key | type and range | default | meaning |", "| --- | --- | --- | --- |"]
    comments = _comments(model)
    for name in names:
        field = model.model_fields[name]
        kind = expected(TypeAdapter(field.rebuild_annotation()).json_schema())
        default = "" if field.default is PydanticUndefined else f"`{_yaml(field.default)}`"
        rows.append(f"| `{prefix}{name}` | {_cell(kind)} | {default} | {_cell(comments.get(name, ''))} |")
    return rows


def _yaml(value: Any) -> str:
    words = {True: "true", False: "false", None: "null"}
    if value is None or isinstance(value, bool):
        return words[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Return what the comments behind and above the fields of a section say."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            field = re.match(r"    (\w+): [^#]*(?:#\s*(.*))?$", line)
            if comment := re.match(r"    # (.*)", line):
                above.append(comment[1])
            elif field:
                found[field[1]] = " ".join([*above, field[2] or ""]).strip()
                above = []
            else:
                above = []
    return found


def api() -> dict[str, str]:
    """Return a page that lists the public names, and one for each room with all its modules."""
    rows = [f"- [`{name}`][meta_ood.{module}.{name}]" for name, module in sorted(meta_ood._MODULES.items())]
    pages = {"index": "\n".join(["# Python", "", inspect.cleandoc(meta_ood.__doc__ or ""), "", *rows])}
    source = Path(meta_ood.__file__).parent
    for room in sorted(path for path in source.iterdir() if (path / "__init__.py").exists()):
        files = [path for path in sorted(room.rglob("*.py")) if path.name != "__main__.py"]
        modules = [".".join(path.relative_to(source.parent).with_suffix("").parts) for path in files]
        modules = [module.removesuffix(".__init__") for module in modules]
        pages[room.name] = f"# {room.name}" + "".join(f"\n\n::: {module}" for module in modules)
    return pages
