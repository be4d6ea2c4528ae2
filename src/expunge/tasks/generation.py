"""Text generation by causal language models: a unit is a token of the answer, read at the position before it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from expunge.data.long_text import text_rows
from expunge.data.records import Columns, Records, is_text
from expunge.errors import Problem, UsageError, rows_have
from expunge.tasks.base import AUDITS, Batch, Encoded, pad
from expunge.token_attacks import compressed_sizes

__all__ = ["ANSWER", "PROMPT", "Generation", "template_problems"]

PROMPT, ANSWER = "{prompt}", "{answer}"
_PLAIN = f"{PROMPT}\n{ANSWER}"


@dataclass(frozen=True)
class Generation:
    """Writing with an `AutoModelForCausalLM`.

    A record's `texts` are a prompt and its answer, or one plain text; it has no label. Units are the tokens of the answer and
    the end-of-text token behind it (of a plain text all tokens but the first); the class of a unit is the token itself, and
    it is read at the position before. Nothing hangs on padding: masks come from lengths, so a tokenizer that pads with its
    end-of-text token loses none.

    Prompt and answer are joined as in fine-tuning: by `template`, else by the tokenizer's chat template, else by a line
    break. They are tokenised as one text, since a tokenizer may join what lies on both sides of a border; a token that
    lies across it counts as the answer's.

    Attributes:
        tokenizer: The model's tokenizer, a fast one.
        max_length: Tokens a record is cut to, at its end: prompts are never cut.
        label_names: The vocabulary, by number.
        template: How prompt and answer are joined, such as ``"Question: {prompt}\\nAnswer: {answer}"``; None: see above.
    """

    tokenizer: Any
    max_length: int
    label_names: tuple[str, ...]
    template: str | None = None

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    architecture: ClassVar[str | tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")
    noun: ClassVar[str] = "causal language model"
    text_columns: ClassVar[tuple[str, ...]] = ("prompt",)
    label_column: ClassVar[str] = "answer"
    other_columns: ClassVar[tuple[tuple[tuple[str, ...], str], ...]] = (
        (("question",), "answer"),
        (("instruction",), "output"),
        (("text",), ""),
    )
    of_tokens: ClassVar[bool] = True
    audits: ClassVar[tuple[str, ...]] = (*AUDITS, "answers", "token-membership")

    @staticmethod
    def settings(model: Any) -> dict[str, Any]:
        """What the task takes of a run's `model` section."""
        return {"template": model.template}

    @staticmethod
    def names(model_config: Any, tokenizer: Any, given: Sequence[str]) -> tuple[str, ...]:
        """The vocabulary: a name for every class the model has.

        Raises:
            UsageError: Class names are given, or the tokenizer knows tokens that the model does not.
        """
        if given:
            way_out = "Leave data.labels out: what a causal language model tells apart is its vocabulary."
            raise UsageError(Problem("data.labels", f"{len(given)} names are given", way_out))
        count = int(model_config.vocab_size)
        if len(tokenizer) > count:
            what = f"its tokenizer has {len(tokenizer)} tokens, the model's vocabulary {count}"
            way_out = "Give the tokenizer the model was trained with, or resize_token_embeddings and train again."
            raise UsageError(Problem("model.path", what, way_out))
        return tuple(str(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) + tuple(
            f"<unused {i}>" for i in range(len(tokenizer), count)
        )

    @staticmethod
    def unsuitable(model_config: Any, tokenizer: Any) -> list[Problem]:
        """Models that read in both directions, and tokenizers that cannot say where a token lies in a text."""
        problems = []
        if getattr(model_config, "is_encoder_decoder", False):
            way_out = "Give a decoder-only model, such as Llama, Qwen, Mistral, GPT-2 or SmolLM2."
            problems.append(Problem("model.path", "the model is an encoder-decoder", way_out))
        if tokenizer is not None and not tokenizer.is_fast:
            way_out = "Save a fast one (a tokenizer.json) with the model."
            problems.append(
                Problem("model.path", "its tokenizer is a slow one, which cannot tell where a token lies", way_out)
            )
        if tokenizer is not None and tokenizer.eos_token_id is None:
            way_out = "Set one (tokenizer.eos_token = ...) and save it again: an answer must end somewhere."
            problems.append(Problem("model.path", "its tokenizer has no end-of-text token", way_out))
        return problems

    @staticmethod
    def read(
        columns: Columns, text: Sequence[str], label: str, label_names: Sequence[str], *, where: str
    ) -> tuple[Sequence[tuple[str, ...]], tuple[int, ...]]:
        """Prompts and answers, or plain texts, of the columns named.

        Raises:
            UsageError: Rows without text, or whose answer says nothing.
        """
        del label_names
        if len(text) > 1:
            what = f"{len(text)} text columns are named"
            raise UsageError(Problem("data.text", what, "Name the column of the prompts, or of plain texts."))
        if text == ("instruction",) and label == "output" and any(map(_says, columns.get("input", ()))):
            what = 'besides instruction and output there is a column "input" that says something'
            way_out = (
                "It is a part of the prompt: join it to the instruction, as in fine-tuning, and leave the column out."
            )
            raise UsageError(Problem(where, what, way_out))
        names = [*text, *([label] if label else [])]
        texts = text_rows([columns[name] for name in names])
        problems = []
        if bad := [row for row, parts in enumerate(texts, start=1) if not all(map(is_text, parts))]:
            what = f"{rows_have(len(bad))} no text or broken Unicode or a NUL in it, the first is row {bad[0]}"
            problems.append(Problem(where, what, f"Every row needs text in {', '.join(names)}."))
        if empty := [row for row, parts in enumerate(texts, start=1) if is_text(parts[-1]) and not parts[-1].strip()]:
            what = f"{rows_have(len(empty))} an empty {names[-1]}, the first is row {empty[0]}"
            problems.append(Problem(where, what, "There is nothing to forget in them: leave them out."))
        if problems:
            raise UsageError(problems)
        return texts, (0,) * len(texts)

    @staticmethod
    def labelled(labels: Sequence[Any], wanted: str, label_names: Sequence[str]) -> list[int]:
        """Never any: records of a language model have no class.

        Raises:
            UsageError: Always.
        """
        del labels, label_names
        way_out = "Name records by id, by a condition on their columns (--forget-where) or by what they mention."
        raise UsageError(Problem("request.label", f'"{wanted}" is asked for, and records have no class', way_out))

    def misfits(self, records: Records, where: str) -> list[Problem]:
        """Records of which nothing is left to learn once they are cut to `max_length`."""
        encoded = self.encode(records)
        long = [i for i, units in enumerate(encoded.labels) if not units]
        if not long:
            return []
        tokens = len(encoded.input_ids[long[0]])
        what = (
            f"{len(long)} records have no token of an answer within {self.max_length} tokens, the first is record "
            f"{long[0] + 1}, whose prompt takes {tokens} or more"
        )
        way_out = "Shorten these prompts, leave the records out, or raise model.max_length where the model has room."
        return [Problem(where, what, way_out)]

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once, cut to `max_length`."""
        return self.encode_texts(records.texts)

    def encode_texts(self, texts: Sequence[tuple[str, ...]], labels: Sequence[Any] | None = None) -> Encoded:
        """Tokenise prompts with their answers, or plain texts; there are no labels to give."""
        del labels
        pairs = [self._joined(parts) for parts in texts]
        tokenizer = copy.deepcopy(self.tokenizer)  # truncation is a state of the tokenizer, and would be saved with it
        output = tokenizer(
            [whole for whole, _ in pairs], add_special_tokens=not self._by_chat, padding=False, truncation=False,
            return_attention_mask=False, return_offsets_mapping=True, verbose=False,
        )  # fmt: skip
        ids, labels_, units, cut = [], [], [], []
        for row, offsets, (_, start) in zip(output["input_ids"], output["offset_mapping"], pairs, strict=True):
            own, first = self._ended(list(row), list(offsets), start)
            kept = own[: self.max_length]
            first = max(1, first)  # nothing comes before the first token, to read it at
            ids.append(kept)
            labels_.append(kept[first:])
            units.append(list(range(first - 1, max(first, len(kept)) - 1)))
            cut.append(len(own) - max(first, len(kept)))
        sizes = compressed_sizes([parts[-1] for parts in texts]).tolist()
        return Encoded(ids, None, labels_, units, cut=cut, compressed=sizes)

    @property
    def _by_chat(self) -> bool:
        return self.template is None and bool(self.tokenizer.chat_template)

    def _joined(self, parts: tuple[str, ...]) -> tuple[str, int]:
        """The text of a record as it was trained on, and where what it is about begins."""
        if len(parts) == 1:
            return parts[0], 0
        prompt, answer = parts
        if not self._by_chat:
            before = (self.template or _PLAIN).removesuffix(ANSWER).replace(PROMPT, prompt)
            return before + answer, len(before)
        said = [{"role": "user", "content": prompt}]
        before = self._chat(said, add_generation_prompt=True)
        whole = self._chat([*said, {"role": "assistant", "content": answer}])
        if not whole.startswith(before):
            before = self._chat(said)
        if not whole.startswith(before) or answer.strip() not in whole[len(before) :]:
            way_out = "Say how prompt and answer were joined: model.template = 'Question: {prompt}\\nAnswer: {answer}'."
            what = "its chat template gives a text in which the answer does not follow the prompt"
            raise UsageError(Problem("model.template", what, way_out))
        return whole, len(before)

    def _chat(self, said: list[dict[str, str]], **options: Any) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(said, tokenize=False, **options)
        except TemplateError as error:
            way_out = "Say how prompt and answer were joined: model.template = 'Question: {prompt}\\nAnswer: {answer}'."
            raise UsageError(Problem("model.template", f"its chat template fails ({error})", way_out)) from None

    def _ended(self, ids: list[int], offsets: list[tuple[int, int]], start: int) -> tuple[list[int], int]:
        """Token ids up to and with the end-of-text token, one added where there is none, and the answer's first token.

        A token at the end that the tokenizer itself added (it has no place in the text) is no end-of-text token unless it is
        that very one.
        """
        end = self.tokenizer.eos_token_id
        first = next((i for i, (_, to) in enumerate(offsets) if to > start), len(ids))
        while len(ids) > first and offsets[-1] == (0, 0) and ids[-1] != end:
            ids.pop()
            offsets.pop()
        ends = [i for i in range(first, len(ids)) if ids[i] == end]
        if self._by_chat and ends:
            return ids[: ends[-1] + 1], first
        return (ids if ids and ids[-1] == end and len(ids) > first else [*ids, end]), first

    def collate(self, encoded: Encoded, positions: Sequence[int], views: int = 1, length: int | None = None) -> Batch:
        """A right-padded batch of the records at `positions`, as `expunge.tasks.base.pad` makes it."""
        return pad(encoded, positions, self.tokenizer, self.max_length, views, length)

    def prompts(self, texts: Sequence[tuple[str, ...]]) -> list[list[int]]:
        """Token ids of what stands before the answers, as `encode_texts` joins them; of a plain text its first half."""
        found = []
        for (whole, start), parts in zip(map(self._joined, texts), texts, strict=True):
            before = whole[: start or max(1, len(whole) // 2)]
            ids = self.tokenizer(before, add_special_tokens=not (self._by_chat and len(parts) > 1), verbose=False)[
                "input_ids"
            ]
            while ids and ids[-1] == self.tokenizer.eos_token_id and not self._by_chat:
                ids.pop()  # added by the tokenizer: the answer is still to come
            found.append(ids)
        return found

    def as_texts(self, given: Sequence[Any]) -> list[tuple[str, ...]]:
        """Prompts with their answers, or plain texts, as `Records.texts`."""
        rows = [(row,) if isinstance(row, str) else row for row in given]
        for row in rows:
            good = isinstance(row, tuple | list) and 1 <= len(row) <= 2 and all(isinstance(part, str) for part in row)
            if isinstance(given, str) or not good:
                what = f"{given!r:.60} is no list of texts" if isinstance(given, str) else f"{row!r:.60} is no record"
                way_out = "Give a list of (prompt, answer) pairs, or of plain texts."
                raise UsageError(Problem("texts", what, way_out))
        return [tuple(row) for row in rows]

    def by_record(self, texts: Sequence[tuple[str, ...]], encoded: Encoded, values: np.ndarray) -> list[np.ndarray]:
        """For each record the (n_tokens, ...) values of its units."""
        del texts
        return [values[a:b] for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]

    def entities(self, labels: Any, predictions: Any, offsets: Any) -> None:
        """None: tokens are no entities."""

    @cached_property
    def end(self) -> int:
        """The end-of-text token."""
        return int(self.tokenizer.eos_token_id)


def _says(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def template_problems(template: str | None) -> list[Problem]:
    """What is wrong with a template: it must hold the prompt once and end with the answer."""
    if template is None or (template.count(PROMPT) == 1 and template.count(ANSWER) == 1 and template.endswith(ANSWER)):
        return []
    way_out = "It must hold {prompt} once and end with {answer}, such as 'Question: {prompt}\\nAnswer: {answer}'."
    return [Problem("model.template", f"{template!r} is not allowed", way_out)]
