"""The plan of SISA: placement, order, and what an erasure costs, by enumeration."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product
from types import SimpleNamespace

from expunge.sisa.plan import Plan
from expunge.sisa.request import manifest_of


def test_one_erasure_costs_exactly_15_percent_by_enumeration() -> None:
    """5 shards x 4 slices: stage r costs r slices, so erasing from slice k costs sum_{r>=k} r = 10, 9, 7, 4 of 5 x 10."""
    costs = [Fraction(sum(range(k, 5)), 5 * sum(range(1, 5))) for k in (1, 2, 3, 4)]
    assert [cost * 50 for cost in costs] == [10, 9, 7, 4]
    assert sum(costs) / 4 == Fraction(15, 100)
    plan = Plan(shards=5, slices=4, epochs=3.0)
    equal = [[25] * 4] * 5
    assert plan.share_of_one(equal) == plan.share_of(1) == Fraction(15, 100)
    plain = Fraction(3) * 500  # epochs x records
    ensemble = sum(plan.planned(shard) for shard in equal)
    assert ensemble == plain, "a shard's stages make as many passes as plain training"
    assert plan.share_of_one(equal) * ensemble == Fraction(15, 100) * plain == 225


def test_the_cost_of_several_records_by_enumeration() -> None:
    plan = Plan(shards=2, slices=2, epochs=1.0)
    cells = list(product(range(2), (1, 2)))
    costs = []
    for both in product(cells, cells):
        first = {shard: min(k for s, k in both if s == shard) for shard, _ in both}
        costs.append(sum((Fraction(sum(range(k, 3)), 6) for k in first.values()), Fraction(0)))
    assert plan.share_of(2) == sum(costs) / len(costs)
    assert Plan().share_of(10_000) > Fraction(999, 1000)


def test_hashing_spreads_records_evenly_and_one_by_one() -> None:
    plan = Plan()
    cells = Counter(plan.place(f"record {i}") for i in range(20_000))
    assert len(cells) == 20
    # Each of the 20 cells is binomial(20000, 1/20): mean 1000, standard deviation 30.8.
    assert max(abs(count - 1000) for count in cells.values()) < 4.5 * 30.8
    assert sum((count - 1000) ** 2 / 1000 for count in cells.values()) < 45.3, "chi-square, 19 degrees, p = .0006"
    moved = sum(plan.place(f"record {i}") != Plan(seed=1).place(f"record {i}") for i in range(1000))
    assert moved > 900, "another seed, another placement"


def test_passes_of_stages_are_the_visits_made() -> None:
    plan = Plan(shards=1, slices=4, epochs=3.0)
    assert plan.stage_epochs == Fraction(6, 5)
    ids = [f"r{i}" for i in range(40)]
    counts = plan.counts(ids)[0]
    for stage in (1, 2, 3, 4):
        mine = [ids[i] for i in plan.members(0, stage, ids)]
        batches = list(plan.batches(0, stage, mine, counts, 8))
        seen = Counter(i for batch in batches for i in batch.positions)
        assert sum(seen.values()) == plan.visits(counts, stage) == int(Fraction(6, 5) * len(mine) + Fraction(1, 2))
        assert set(seen.values()) <= {1, 2}, "one whole epoch, and a part of a second"
        turned = list(plan.batches(0, stage, mine[::-1], counts, 8))
        assert [[mine[i] for i in b.positions] for b in batches] == [
            [mine[::-1][i] for i in b.positions] for b in turned
        ]
        assert [b.seed for b in batches] == [b.seed for b in turned]
    assert plan.visits([10, 0, 5, 5], 2) == 0, "a stage whose own slice is empty trains nothing"
    assert [sum(plan.visits([10] * 4, r) for r in (1, 2, 3, 4))] == [120]
    by_length = next(plan.batches(0, 4, ids, counts, 8, lengths=list(range(40))))
    assert by_length.positions == list(range(39, 31, -1))


def test_no_other_model_in_memory_is_taken_for_an_ensemble() -> None:
    """O3's have a manifest of their own."""
    assert manifest_of("", SimpleNamespace(manifest="another")) is None
