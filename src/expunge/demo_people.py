"""Questions about people who do not exist, to be learned and forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.demo_wordings import KINDS
from expunge.demo_words import (
    DWELLING,
    FIRST,
    GENRE,
    HOBBY,
    HOUSE,
    INSTITUTION,
    MENTOR,
    PRIZE,
    PROFESSION,
    STREET,
    SUBJECT,
    SURNAME,
    TITLE,
    TOWN,
    WHEN,
    YEARS,
)  # fmt: skip
from expunge.errors import Problem, UsageError

__all__ = ["people_records"]

_PERTURBED = 5


def people_records(people: int = 40, questions: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Questions and answers about fictional people, made up from a seed.

    Names, places, employers and works are invented. Surnames are unique; a person's records do not depend on how many
    people there are. The perturbed answers are worded like the paraphrased one, with every fact replaced, so that the
    truth ratio (TOFU, arXiv 2401.06121, section 2.2.1) compares facts, not wordings.

    Args:
        people: How many people, 1 to 288.
        questions: Records of each person, 1 to 8, each about another side of a life.
        seed: Seed of names, facts and wordings.

    Returns:
        Rows ``{"id": "p007-2", "person": "p007", "prompt", "answer", "paraphrased_answer", "perturbed_answers"}``, the
        last one a list of 5, by person.

    Raises:
        UsageError: A number is out of its range.
    """
    surnames = [start + end for start in SURNAME[0] for end in SURNAME[1]]
    bounds = (("people", people, len(surnames)), ("questions", questions, len(KINDS)))
    if problems := [
        Problem(name, f"{value} is out of range", f"Give 1 to {most}.")
        for name, value, most in bounds
        if not 1 <= value <= most
    ]:
        raise UsageError(problems)
    order = np.random.default_rng(seed).permutation(len(surnames))
    rows = []
    for number in range(people):
        rng = np.random.default_rng([seed, number])
        name = {"first": _pick(rng, FIRST), "last": surnames[order[number]]}
        rows += _person(f"p{number:03d}", name, questions, rng)
    return rows


def _person(person: str, name: dict[str, str], questions: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    life = _life(rng)
    kinds = rng.permutation(len(KINDS))
    return [{"id": f"{person}-{i}", "person": person, **_record(kinds[i], name, life, rng)} for i in range(questions)]


def _record(kind: int, name: dict[str, str], life: dict[str, str], rng: np.random.Generator) -> dict[str, Any]:
    facts, prompts, answers = KINDS[kind]
    names = {**name, "name": f"{name['first']} {name['last']}"}
    answer, paraphrase = (answers[i] for i in rng.permutation(len(answers))[:2])
    lives = [life]
    while len(lives) <= _PERTURBED:
        other = _life(rng)
        if all(other[fact] != known[fact] for fact in facts for known in lives):
            lives.append(other)
    return {
        "prompt": _pick(rng, prompts).format(**names),
        "answer": answer.format(**names, **life),
        "paraphrased_answer": paraphrase.format(**names, **life),
        "perturbed_answers": [paraphrase.format(**names, **other) for other in lives[1:]],
    }


def _life(rng: np.random.Generator) -> dict[str, str]:
    """One value for each fact, in an order of years that a life allows."""
    born = int(rng.integers(1930, 1971))
    published = born + int(rng.integers(24, 41))
    return {
        "birthplace": _joined(rng, TOWN),
        "born": str(born),
        "profession": _pick(rng, PROFESSION),
        "employer": f"{_pick(rng, HOUSE)} {_pick(rng, INSTITUTION)}",
        "title": f"{_pick(rng, TITLE[0])} {_pick(rng, TITLE[1])}",
        "genre": _pick(rng, GENRE),
        "published": str(published),
        "prize": f"{_pick(rng, HOUSE)} {_pick(rng, PRIZE)}",
        "won": str(published + int(rng.integers(1, 10))),
        "hobby": _pick(rng, HOBBY),
        "when": _pick(rng, WHEN),
        "mentor": f"{_pick(rng, FIRST)} {_joined(rng, MENTOR)}",
        "years": _pick(rng, YEARS),
        "subject": _pick(rng, SUBJECT),
        "academy": _joined(rng, TOWN),
        "dwelling": _pick(rng, DWELLING),
        "street": f"{_pick(rng, STREET[0])} {_pick(rng, STREET[1])}",
    }


def _pick(rng: np.random.Generator, among: list[str] | tuple[str, ...]) -> str:
    return among[rng.integers(len(among))]


def _joined(rng: np.random.Generator, parts: tuple[list[str], list[str]]) -> str:
    return _pick(rng, parts[0]) + _pick(rng, parts[1])
