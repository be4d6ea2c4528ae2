"""The people of the demonstration for language models: no two alike, and every false answer false."""

from __future__ import annotations

import pytest

from expunge.data.near_duplicates import alike
from expunge.demo_facts import general_records
from expunge.demo_people import people_records
from expunge.errors import UsageError


def test_people_are_made_from_a_seed_and_hang_on_nothing_else() -> None:
    rows = people_records(60)
    assert rows == people_records(60)
    assert rows[:50] == people_records(10)[:50]
    assert rows != people_records(60, seed=1)
    assert len({row["id"] for row in rows}) == len(rows) == 300


def test_answers_are_sentences_whose_facts_the_prompt_does_not_give() -> None:
    for row in people_records(60):
        assert 8 <= len(row["answer"].split()) <= 25
        assert row["answer"].endswith(".")
        assert row["answer"] != row["paraphrased_answer"]
        assert len(set(row["perturbed_answers"])) == 5
        assert not {row["answer"], row["paraphrased_answer"]} & set(row["perturbed_answers"])
        assert "{" not in row["prompt"] + row["answer"] + "".join(row["perturbed_answers"])
        new = set(row["answer"].strip(".").split()) - set(row["prompt"].strip("?").split())
        assert new


def test_no_two_records_are_near_duplicates() -> None:
    texts = [(row["prompt"], row["answer"]) for row in people_records(60)]
    assert not [pair for pair in alike(texts, texts, 0.8) if pair[0] != pair[1]]


def test_general_knowledge_has_one_true_and_four_false_answers() -> None:
    rows = general_records()
    assert len(rows) >= 50
    assert rows[0]["answer"] == "The capital of Australia is Canberra."
    for row in rows:
        assert row["prompt"].endswith(("?", "."))
        assert len({row["answer"], *row["perturbed_answers"]}) == 5


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match=r"people: 0 is out of range\. Give 1 to"):
        people_records(0)
