"""Near-duplicates and neighbours of requested records: found, shown, added or left, and judged."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Job, write_csv
from expunge.config import RequestConfig
from expunge.data import rare_pieces
from expunge.data.near_duplicates import _framed, _pieces, alike
from expunge.data.records import Records
from expunge.data.request import resolve
from test_bad_input import rows_of

SENTENCE = "the heating in my flat has been broken since monday and nobody answers"


def found(first: str, second: str, threshold: float = 0.8) -> list[float]:
    return [similarity for _, _, similarity in alike([(first,)], [(second,)], threshold)]


def test_similarity_is_the_jaccard_index_of_pieces() -> None:
    """Framed by spaces the 22 letters are 24 characters: 20 pieces of 5. With "w" behind them they are 21, which hold all
    of the first's but its last ("stuv "): 19 of 20 + 21 - 19."""
    first = "abcdefghijklmnopqrstuv"
    assert len(_pieces(_framed((first,), False))) == 20
    assert found(first, first + "w", 0.5) == [pytest.approx(19 / 22)]


def test_what_is_nearly_the_same_is_found() -> None:
    assert found(SENTENCE, SENTENCE.upper() + "!!") == [1.0]
    assert found(SENTENCE, SENTENCE + " today") != []
    assert found(SENTENCE, SENTENCE.replace("broken", "brokn")) != []
    assert found(SENTENCE, "the water in my flat has been cold since monday and nobody answers") == []


@pytest.mark.parametrize(
    "texts", [("yes", "yes sir"), ("card lost", "card lost?? no"), ("good film", "god film"), ("", "!?")]
)
def test_tiny_texts_are_alike_only_letter_by_letter(texts: tuple[str, str]) -> None:
    assert found(*texts, threshold=0.3) == []
    if texts[0]:
        assert found(texts[0], texts[0].title() + "!") == [1.0]


@pytest.mark.parametrize("texts", [("दिन", "दीन"), ("मुझे गाना पसंद है", "मुझे गाना पसंद हो"), ("ไม่ดี", "ไม่ดู")])
def test_vowel_signs_and_tone_marks_are_part_of_a_word(texts: tuple[str, str]) -> None:
    assert found(*texts) == []
    assert found(texts[0], texts[0]) == [1.0]


def test_tiny_texts_by_the_thousand_give_no_false_alarm() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(300)]
    texts = list({(" ".join(rng.choices(words, k=rng.randint(1, 3))),) for _ in range(3000)})
    assert alike(texts[:300], texts[300:], 0.5) == []


@settings(deadline=None)  # scipy loads at the first call
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.7, 0.8, 0.9, 1.0]))
def test_the_search_finds_what_comparing_all_pairs_finds(seed: int, threshold: float) -> None:
    rng = random.Random(seed)
    words = ["heating", "flat", "broken", "monday", "nobody", "answers", "since", "water"]
    texts = [(" ".join(rng.choices(words, k=rng.randint(0, 9))),) for _ in range(40)]
    assert set(alike(texts[:15], texts[15:], threshold)) == by_all_pairs(texts[:15], texts[15:], threshold)


def by_all_pairs(wanted: list[tuple[str]], others: list[tuple[str]], threshold: float) -> set[tuple[int, int, float]]:
    first, second = ([_pieces(_framed(text, False)) for text in texts] for texts in (wanted, others))
    slow = set()
    for i, own in enumerate(first):
        for j, other in enumerate(second):
            both = len(own & other)
            if both and both / len(own | other) >= threshold:
                slow.add((i, j, both / len(own | other)))
    assert all(math.isfinite(s) for _, _, s in slow)
    return slow


def test_pieces_that_share_a_hash_hide_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two bits for a hash all pieces collide: pairs cost more to compare, and the same are found."""
    hashes = rare_pieces._hashes
    monkeypatch.setattr(rare_pieces, "_hashes", lambda codes, size: hashes(codes, size) & np.uint64(3))
    rng = random.Random(5)
    words = ["heating", "flat", "broken", "monday", "nobody", "answers", "since", "water", "день", "水道"]
    texts = [(" ".join(rng.choices(words, k=rng.randint(0, 9))),) for _ in range(200)]
    for threshold, least in ((0.3, 10), (0.5, 3)):
        found = alike(texts[:60], texts[60:], threshold)
        assert len(found) >= least
        assert set(found) == by_all_pairs(texts[:60], texts[60:], threshold)


def test_where_the_search_cuts_the_stream_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    words = ["heating", "flat", "broken", "monday", "nobody", "answers", "since", "water"]
    texts = [(" ".join(rng.choices(words, k=8)),) for _ in range(60)]
    whole = alike(texts[:20], texts[20:], 0.5)
    monkeypatch.setattr("expunge.data.near_duplicates._CHUNK", 150)
    assert alike(texts[:20], iter(texts[20:]), 0.5) == whole
    assert len({place // 4 for _, place, _ in whole}) > 3  # three texts or so a chunk
    assert [place for _, place, _ in whole] == sorted(place for _, place, _ in whole)


def test_sentences_of_words_and_pairs() -> None:
    words = tuple(SENTENCE.split())
    assert alike([words], [(*words, ".")], 0.8, of_words=True) == [(0, 0, 1.0)]
    pair = (SENTENCE, "a second text that is long enough to count")
    assert alike([pair], [(pair[0] + ".", pair[1])], 0.8) == [(0, 0, 1.0)]
    assert alike([pair], [(pair[0], "nothing of the kind is said in this one")], 0.8) == []


def records(*texts: str) -> Records:
    return Records(tuple(f"r{i}" for i in range(len(texts))), tuple((t,) for t in texts), tuple(0 for _ in texts))


def test_they_stay_or_are_added_by_choice() -> None:
    data = records(SENTENCE, "another text altogether, of some length", SENTENCE.title(), SENTENCE + " now", "short")
    left = resolve(data, ["r0"], RequestConfig())
    assert [(m.requested, m.other, m.kind) for m in left.near] == [("r0", "r3", "near")]
    assert left.forget == (0,)
    assert left.left == {"r2", "r3"}
    assert left.added == frozenset()
    exact = resolve(data, ["r0"], RequestConfig(with_duplicates=True))
    assert (exact.forget, exact.left, exact.added) == ((0, 2), {"r3"}, {"r2"})
    both = resolve(data, ["r0"], RequestConfig(with_near_duplicates=True))
    assert (both.forget, both.retain, both.left) == ((0, 2, 3), (1, 4), frozenset())
    strict = resolve(data, ["r0"], RequestConfig(near_duplicates=1.0))
    assert strict.near == ()


@pytest.fixture
def planted(job: Job, tmp_path: Path) -> dict[str, object]:
    """The job with a near copy of one requested record in training, one in held-out, and a paraphrase of another."""
    rows = rows_of(job.train)
    words = "river w10 w20 w30 w40 w50 w60 w70 w80 w90"
    rows[0]["text"], rows[0]["label"] = words, "water"
    other = "w11 w21 engine w31 w41 w51 w61 w71 w81 w91"
    rows[1]["text"], rows[1]["label"] = other, "machine"
    shuffled = " ".join(sorted(other.split(), key=lambda word: word[::-1]))
    rows += [
        {"id": "near-copy", "text": words + " w5", "label": "water"},
        {"id": "paraphrase", "text": shuffled, "label": "machine"},
    ]
    held = [*rows_of(job.held_out), {"id": "held", "text": words + " w6", "label": "water"}]
    return {"data": write_csv(tmp_path / "data.csv", rows), "held-out": write_csv(tmp_path / "held.csv", held)}


def prepared(job: Job, planted: dict[str, object], **settings: object):
    from expunge.checks import check
    from expunge.config import RunConfig

    values = {
        "model": {"path": str(job.model)},
        "data": {"train": str(planted["data"]), "held_out": str(planted["held-out"]), "id": "id"},
        "request": {"file": str(job.ids)},
        "retrain": {"base": str(job.base)},
        "privacy": {"salt_file": str(job.salt)},
    }
    flags = dict(settings)
    return check(RunConfig.from_dict(values, flags=flags))


def test_a_near_copy_is_counted_in_training_and_in_held_out(job: Job, planted: dict[str, object]) -> None:
    found = prepared(job, planted)
    assert [m.other for m in found.request.near] == ["near-copy"]
    assert found.left() == {"identical": 0, "near": 1, "neighbour": 0}
    assert found.near_held_out == 1
    dropped = prepared(job, planted, **{"data.overlap": "drop"})
    assert (dropped.near_held_out, dropped.dropped) == (0, 1)


def test_a_paraphrase_is_found_by_its_neighbourhood_in_the_base(job: Job, planted: dict[str, object]) -> None:
    """The words in another order share few pieces; a mean over tokens lies where it lay."""
    assert "paraphrase" not in {m.other for m in prepared(job, planted).request.near}
    found = prepared(job, planted, **{"request.neighbours": 0.9})
    assert ("r1-0001", "paraphrase", "neighbour") in {(m.requested, m.other, m.kind) for m in found.request.near}
    assert found.left()["neighbour"] >= 1
    added = prepared(job, planted, **{"request.neighbours": 0.9, "request.with_near_duplicates": True})
    ids = {added.train.ids[i] for i in added.request.forget}
    assert {"near-copy", "paraphrase"} <= ids
    assert added.left() == {"identical": 0, "near": 0, "neighbour": 0}
    assert not ids & {added.train.ids[i] for i in added.request.retain}
