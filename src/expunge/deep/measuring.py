"""Ask a model every fact, and measure how deeply targets are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge.deep.fact_file import FactFile
from expunge.deep.measures import Depth, depth
from expunge.deep.probing import answered
from expunge.deep.reading import read_knowledge
from expunge.errors import Collector, Problem, UsageError
from expunge.models import inspect_folder, load_config, load_model, load_tokenizer
from expunge.tasks.generation import Generation, template_problems

__all__ = ["Found", "measure_model"]


@dataclass(frozen=True)
class Found:
    """What a model still answers, and how deeply each target is forgotten.

    Attributes:
        asked: Questions asked.
        known: Questions answered.
        depths: Name of a target -> its figures.
        complete: Name of a target -> whether all its minimal sets are known.
    """

    asked: int
    known: int
    depths: dict[str, Depth]
    complete: dict[str, bool]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        targets = {name: {**asdict(own), "all_sets_known": self.complete[name]} for name, own in self.depths.items()}
        return {"asked": self.asked, "answered": self.known, "targets": targets}

    def lines(self) -> list[str]:
        """The figures in words."""
        lines = [f"{self.known} of {self.asked} facts are answered."]
        for name, own in self.depths.items():
            bound = "" if self.complete[name] else ", at least: not all minimal sets are known"
            lines += [
                f"{name}:",
                f"  forgotten itself: {'yes' if own.superficial else 'no'}",
                f"  can be deduced from what is left: {'no' if own.success else 'yes'}",
                f"  recall {own.recall:.2f} (share of a minimal set of {own.minimal} that is forgotten{bound})",
                f"  accuracy {own.accuracy:.3f} on other facts of the rules' relations, {own.accuracy_all:.3f} on all others",
            ]
        return lines


def measure_model(
    path: str, facts: str | Path, rules: str | Path | None, targets: Sequence[str], *, template: str | None = None,
    batch_size: int = 64,
) -> Found:  # fmt: skip
    """Ask a model every fact of a file and measure targets.

    Args:
        path: Folder or hub id of the model.
        facts: File of facts, each with a question and an answer.
        rules: File of rules; None where the first holds them.
        targets: Targets, by id.
        template: How question and answer were joined; None: as in `Generation`.
        batch_size: Questions at once.

    Raises:
        UsageError: Everything that is wrong with these.
    """
    found = Collector()
    found.problems += [*inspect_folder(path, where="MODEL"), *template_problems(template)]
    read = found.run(read_knowledge, facts, rules)
    places = found.run(_targets, read, targets) if read is not None else None
    found.finish()
    assert read is not None
    assert places is not None
    tokenizer = load_tokenizer(path, where="MODEL")
    config = load_config(path, where="MODEL")
    names = Generation.names(config, tokenizer, ())
    task = Generation(tokenizer, int(getattr(config, "max_position_embeddings", 512)), names, template)
    model = load_model(path, task.auto_class, where="MODEL")
    known = answered(model, task, [asked for asked in read.questions if asked], batch_size=batch_size)
    gone = frozenset(i for i, one in enumerate(known) if not one)
    depths, complete = {}, {}
    for place in places:
        sets, all_of_them = read.sets(place)
        depths[read.name(place)] = depth(read.base, place, gone, sets)
        complete[read.name(place)] = all_of_them
    return Found(len(known), int(known.sum()), depths, complete)


def _targets(read: FactFile, targets: Sequence[str]) -> tuple[int, ...]:
    """Positions of the targets, all of which a model can be asked.

    Raises:
        UsageError: A name is no fact's, or facts come without questions.
    """
    problems: list[Problem] = []
    if lacking := [name for name, asked in zip(read.ids, read.questions, strict=True) if asked is None]:
        what = f'{len(lacking)} facts come without a question, such as "{lacking[0]}"'
        problems.append(Problem("FACTS", what, "Give every fact a question and an answer: a model is asked them."))
    try:
        places = read.positions(targets, "--target")
    except UsageError as error:
        raise UsageError([*problems, *error.problems]) from None
    problems += [
        Problem("--target", f"{read.name(i)} is derived, and nobody can ask a model for it", "Name a known fact.")
        for i in places
        if i >= len(read.ids)
    ]
    if problems:
        raise UsageError(problems)
    return places
