"""States of every layer come from the one scoring pass, and are those of the units asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.head import head_of
from expunge.layer_states import sample_units
from expunge.scoring import score
from expunge.tasks.base import Encoded
from expunge.testing import FAMILIES, tiny_classifier, tiny_tagger
from expunge.tiny_jobs import tag_job, text_job


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_text_is_the_mean_of_its_tokens_at_every_layer(family: str) -> None:
    job = text_job()
    model = tiny_classifier(family).eval()
    head, units = head_of(model, job.task, job.retain), np.array([0, 3, 17])
    table = score(model, head, job.retain, job.task, batch_size=4, layer_units=units)
    assert table.layers is not None
    assert table.layers.shape == (3, 3, 32)
    assert table.layers.dtype == np.float16
    for place, record in enumerate(units):
        ids = torch.tensor([job.retain.input_ids[record]])  # alone and without padding
        with torch.inference_mode():
            alone = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
        wanted = torch.cat([state.mean(dim=1) for state in alone]).numpy()
        np.testing.assert_allclose(table.layers[place], wanted, atol=5e-3, rtol=5e-3)
    plain = score(model, head, job.retain, job.task, batch_size=4)
    assert plain.layers is None
    np.testing.assert_array_equal(plain.margins, table.margins)


def test_a_word_is_its_first_token() -> None:
    job = tag_job()
    model = tiny_tagger().eval()
    units = sample_units(job.retain, 40, 0)
    table = score(model, head_of(model, job.task, job.retain), job.retain, job.task, layer_units=units)
    # A tagger's head reads the last layer at the very same token.
    assert table.layers is not None
    np.testing.assert_allclose(table.layers[:, -1], table.hidden[units], atol=5e-3, rtol=5e-3)


def test_every_record_runs_through_the_model_once() -> None:
    job = text_job()
    model, rows = tiny_classifier().eval(), []
    head = head_of(model, job.task, job.retain)
    model.register_forward_pre_hook(lambda m, a, k: rows.append(len(k["input_ids"])), with_kwargs=True)
    score(model, head, job.retain, job.task, batch_size=8, layer_units=sample_units(job.retain, 100, 0))
    assert sum(rows) == len(job.retain)


def test_the_sample_is_bounded_the_same_again_and_not_all_o() -> None:
    job = text_job()
    assert len(sample_units(job.retain, 10, 0)) == 10
    np.testing.assert_array_equal(sample_units(job.retain, 10, 3), sample_units(job.retain, 10, 3))
    np.testing.assert_array_equal(sample_units(job.retain, 1000, 0), np.arange(len(job.retain)))
    labels = [[0] * 18 + [1, 2]] * 30
    words = Encoded([[5] * 20] * 30, None, labels, [list(range(20))] * 30)
    drawn = np.array(words.flat_labels)[sample_units(words, 60, 0)]
    assert (drawn == 0).sum() == 30
    drawn = np.array(words.flat_labels)[sample_units(words, 200, 0)]
    assert (len(drawn), (drawn > 0).sum()) == (200, 60)


def test_models_that_do_not_tell_their_layers_have_none() -> None:
    class Silent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_classifier()
            self.config = self.inner.config

        def forward(self, **inputs):
            inputs.pop("output_hidden_states", None)
            return self.inner(**inputs)

    job, model = text_job(), Silent().eval()
    table = score(model, head_of(model, job.task, job.forget), job.forget, job.task, layer_units=np.arange(7))
    assert table.layers is None
