"""What the doctor finds, and the report of an examination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is worth knowing.

    Attributes
    ----------
    level
        ``error``: `prepare` would stop or results would be wrong; ``warning``: not as published;
        ``note``: worth knowing.
    code
        Short name of the kind of finding, stable.
    text
        What was found, in a sentence.
    advice
        What to do next; may be empty.
    files
        The files that show it, a few of them.
    count
        How many files show it.
    """

    level: Level
    code: str
    text: str
    advice: str = ""
    files: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class Report:
    """The result of an examination.

    Attributes
    ----------
    name
        The dataset.
    root, split
        What was examined.
    facts
        What was counted: frames, scenes, sizes, label values.
    findings
        Errors first.
    """

    name: str
    root: str
    split: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a json file."""
        return {
            "dataset": self.name,
            "root": self.root,
            "split": self.split,
            "passed": self.passed,
            "facts": dict(self.facts),
            "findings": [
                vars(finding) | {"files": list(finding.files)} for finding in self.findings
            ],
        }


_ORDER: tuple[Level, ...] = ("error", "warning", "note")


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by level; within a level they keep their order."""
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.level)))


def gather(
    level: Level, code: str, text: str, files: Iterable[object], advice: str = ""
) -> list[Finding]:
    """Make one finding of all files that show the same thing; none if there is no file.

    Parameters
    ----------
    level, code, advice
        As in :class:`Finding`.
    text
        Sentence in which ``{count}`` stands for the number of files.
    files
        The files.

    Examples
    --------
    >>> gather("note", "x", "{count} odd files", ["b", "a"])[0].text
    '2 odd files'
    """
    names = sorted(str(file) for file in files)
    if not names:
        return []
    return [
        Finding(level, code, text.format(count=len(names)), advice, tuple(names[:5]), len(names))
    ]
