"""What a causal language model writes to a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from expunge.data.records import Records
from expunge.tasks.base import Encoded

__all__ = ["generate", "own_answers"]


def generate(
    model: Any,
    task: Any,
    texts: Sequence[tuple[str, ...]],
    *,
    tokens: int | Sequence[int] = 64,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """Answers to the prompts of records, decoded without special tokens.

    Prompts are padded on the left and masked by their lengths; generation ends at the end-of-text token. The model's own
    generation settings are left aside.

    Args:
        model: The model.
        task: A `Generation` task: joins prompts as in fine-tuning.
        texts: Prompts, or records of prompt and answer (the answer is not read), or plain texts, of which the first half is
            the prompt.
        tokens: Tokens written at most; one number, or one a record.
        temperature: 0 takes the most probable token each time.
        seed: Of the draws, where the temperature is above 0.
        batch_size: Prompts at once.
        advance: Called with the number of prompts answered, batch by batch.
    """
    from transformers import GenerationConfig

    prompts = task.prompts(texts)
    most = [tokens] * len(prompts) if isinstance(tokens, int) else list(tokens)
    order = sorted(range(len(prompts)), key=lambda i: (most[i], len(prompts[i])))
    device = next(model.parameters()).device
    fill = task.tokenizer.pad_token_id
    found = [""] * len(prompts)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(seed)
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                width = max(len(prompts[i]) for i in chosen)
                ids = torch.tensor([[fill] * (width - len(prompts[i])) + list(prompts[i]) for i in chosen])
                mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
                settings = GenerationConfig(
                    max_new_tokens=max(most[i] for i in chosen), do_sample=temperature > 0, pad_token_id=fill,
                    eos_token_id=task.end, **({"temperature": temperature, "top_k": 0} if temperature > 0 else {}),
                )  # fmt: skip
                written = model.generate(
                    input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
                )
                for i, row in zip(chosen, written[:, width:].tolist(), strict=True):
                    row = row[: row.index(task.end)] if task.end in row else row
                    found[i] = task.tokenizer.decode(row[: most[i]], skip_special_tokens=True).strip()
                if advance:
                    advance(len(chosen))
    finally:
        model.train(was_training)
    return found


def own_answers(task: Any, records: Records) -> dict[str, Any]:
    """How records get other answers than their own, for methods that want them: `reanswered` and `written` of `Unlearning`.

    Nothing where the records are no prompts with answers.
    """
    if not task.of_tokens or any(len(parts) < 2 for parts in records.texts):
        return {}

    def reanswered(answers: Sequence[str]) -> Encoded:
        return task.encode_texts([(parts[0], own) for parts, own in zip(records.texts, answers, strict=True)])

    def written(model: Any, seed: int, temperature: float) -> list[str]:
        answers = [""] * len(records)
        for attempt in range(4):
            left = [i for i, own in enumerate(answers) if not own or own == records.texts[i][-1].strip()]
            again = generate(
                model, task, [records.texts[i] for i in left], temperature=temperature, seed=seed + attempt
            ) if left else []  # fmt: skip
            for i, own in zip(left, again, strict=True):
                answers[i] = own
        return [own or "I don't know." for own in answers]

    return {"reanswered": reanswered, "written": written}
