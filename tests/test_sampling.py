"""Which records a step sees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from expunge.sampling import StepSampler

labels = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=30)


@given(labels, labels, st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_every_anchor_has_partners_of_both_kinds_where_the_data_has_them(forget, retain, batch, ratio, seed) -> None:
    sampler = StepSampler(forget, retain, batch_size=batch, retain_ratio=ratio, seed=seed)
    for number in range(2 * sampler.steps_per_pass):
        plan = sampler.plan(number)
        drawn = {label for i in plan.retain for label in retain[i]}
        known = {label for labels in retain for label in labels}
        wanted = {label for i in plan.forget for label in forget[i]} & known
        assert len(plan.retain) == min(max(2, batch * ratio), len(retain))
        if len(wanted) < len(plan.retain):
            assert wanted <= drawn
        if len(known) > 1:
            assert len(drawn) > 1


@given(labels, labels, st.integers(1, 8), st.integers(0, 99))
def test_a_pass_sees_every_forget_record_once(forget, retain, batch, seed) -> None:
    sampler = StepSampler(forget, retain, batch_size=batch, retain_ratio=1, seed=seed)
    for start in (0, sampler.steps_per_pass):
        seen = [i for n in range(sampler.steps_per_pass) for i in sampler.plan(start + n).forget]
        assert sorted(seen) == list(range(len(forget)))


def test_plans_depend_on_seed_and_step_alone() -> None:
    make = lambda seed: StepSampler([[0], [1], [2]] * 5, [[0], [1], [2]] * 20, batch_size=4, retain_ratio=2, seed=seed)  # noqa: E731
    once, again = make(3), make(3)
    assert [once.plan(n) for n in range(12)] == [again.plan(n) for n in reversed(range(12))][::-1]
    assert [once.plan(n) for n in range(4)] != [make(4).plan(n) for n in range(4)]


def test_retained_partners_are_fresh() -> None:
    """With one class no partner is swapped: none repeats before all were drawn."""
    sampler = StepSampler([[0]] * 8, [[0]] * 40, batch_size=4, retain_ratio=2, seed=0)
    drawn = [i for n in range(5) for i in sampler.plan(n).retain]
    assert sorted(drawn) == list(range(40))


@given(labels, labels, st.integers(1, 8), st.integers(1, 5))
def test_micro_batches_share_out_the_step(forget, retain, batch, parts) -> None:
    plan = StepSampler(forget, retain, batch_size=batch, retain_ratio=2, seed=0).plan(0)
    split = plan.split(parts)
    assert len(split) == parts
    assert tuple(i for part in split for i in part.forget) == plan.forget
    assert tuple(i for part in split for i in part.retain) == plan.retain
