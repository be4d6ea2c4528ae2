"""The large model and its small pair as one torch module, usable where a model is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import RunError
from expunge.models import weights_sha256
from expunge.offset.heads import OffsetHead, OffsetTokenHead, Parts, Sizes, combined, part_of
from expunge.offset.kept import Kept
from expunge.offset.manifest import Manifest
from expunge.offset.small import small_model, weight_of, weight_of_output
from expunge.tasks.base import Batch

__all__ = ["OffsetModel", "with_offset"]


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        logits: Of the ensemble; None where features were asked for.
        features: (U, F) of the three models side by side, at the units of a batch.
        hidden_states: The large model's, where they are asked for: it is the one that learnt the records.
    """

    logits: Tensor | None = None
    features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class OffsetModel(nn.Module):
    """``l = l_M + alpha (l_tuned - l_small)``: a frozen model M and a small pair, of which `tuned` alone is trained.

    Attributes:
        large: M, as it was given; never trained.
        small: The small model as it was; never trained.
        tuned: Its copy that is trained.
        config: M's configuration.
        about: What the ensemble is made of.
        spent: Example-passes of the frozen models so far, of what `remembering` had to run.
    """

    def __init__(self, large: Any, small: Any, tuned: Any, about: Manifest) -> None:
        super().__init__()
        self.large, self.small, self.tuned = large, small, tuned
        self.large.requires_grad_(False)
        self.small.requires_grad_(False)
        self.config = copy.deepcopy(large.config)
        self.about = about
        self.spent = 0.0
        self._kept: Kept | None = None
        self.eval()

    @property
    def alpha(self) -> float:
        """Weight of the offset."""
        return self.about.alpha

    @property
    def of_tokens(self) -> bool:
        """Whether it writes."""
        return self.about.auto_class == "AutoModelForCausalLM"

    def train(self, mode: bool = True) -> OffsetModel:
        """The trained copy's mode; the frozen models stay in eval mode."""
        super().train(mode)
        self.large.eval()
        self.small.eval()
        return self

    @property
    def share(self) -> float:
        """What a pass of the small model counts as, of one of the large: its share of the parameters that a pass multiplies by.

        1 where the large one is a black box: nothing is known of its size.
        """
        return 1.0 if self.black_box else weight_of(self.small) / weight_of(self.large)

    @property
    def passes(self) -> float:
        """Passes of the large model that one of the ensemble counts as.

        While outputs are kept: the trained copy's share, and a third of that of both frozen output layers, which make logits of
        what is kept; what had to be made is counted in `spent`. Else all three models.
        """
        if self._kept is None:
            return 1 + 2 * self.share
        if self.black_box or not self.of_tokens:
            return self.share
        frozen = weight_of_output(self.large) + weight_of_output(self.small)
        return self.share + frozen / weight_of(self.large) / 3

    @property
    def first_passes(self) -> float:
        """What it costs to have both frozen models' outputs of one record."""
        return (1 + self.share) / 3

    @property
    def black_box(self) -> bool:
        """Whether nothing is known of the large model but what it says."""
        return hasattr(self.large, "unknown_weights")

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """While this lasts the frozen models run once on each record, and what they said is kept on disk."""
        with closing(Kept()) as kept:
            self._kept = kept
            try:
                yield
            finally:
                self.spent += kept.rows * self.first_passes
                self._kept = None

    def forward(self, *, batch: Batch | None = None, parts: Parts | None = None, **inputs: Any) -> Output:
        """Logits of the ensemble for a model's keyword arguments; or features at the units of a batch.

        Args:
            batch: The batch, where features are wanted.
            parts: How they are read, as `find_head` found it.
            inputs: As the large model takes them.
        """
        if batch is not None and parts is not None:
            return self._features(batch, parts)
        deep = inputs.pop("output_hidden_states", False)
        own = {**inputs, **({"use_cache": False} if self.of_tokens else {})}
        large = self.large(**own, **({"output_hidden_states": True} if deep else {}))
        small, tuned = self.small(**own).logits, self.tuned(**own).logits
        return Output(combined(large.logits, small, tuned, self.alpha), None, getattr(large, "hidden_states", None))

    def _features(self, batch: Batch, parts: Parts) -> Output:
        states: list[Any] = []
        plain = batch
        if "output_hidden_states" in batch.inputs:  # asked of the large model alone
            plain = replace(batch, inputs={k: v for k, v in batch.inputs.items() if k != "output_hidden_states"})
        frozen = zip(parts[:2], (self.large, self.small), (batch, plain), strict=True)
        if self._kept is None or batch is not plain:
            hook = self.large.register_forward_hook(lambda _, args, said: states.append(said))
            try:
                before = torch.cat([part.features(model, own) for part, model, own in frozen], dim=-1)
            finally:
                hook.remove()
        else:
            before = self._kept.outputs(plain, lambda new: self._run(new, parts))
        features = torch.cat([before, parts[2].features(self.tuned, plain)], dim=-1)
        return Output(None, features, getattr(states[-1], "hidden_states", None) if states else None)

    def _run(self, batch: Batch, parts: Parts) -> Tensor:
        """(U, F) features of both frozen models, in full precision whatever the trained copy runs in."""
        with torch.no_grad(), torch.autocast(batch.labels.device.type, enabled=False):
            both = zip(parts[:2], (self.large, self.small), strict=True)
            return torch.cat([part.features(model, batch) for part, model in both], dim=-1)

    def find_head(self, probe: Batch) -> OffsetHead | OffsetTokenHead:
        """The last linear layers of the three models."""
        models = (self.large, self.small, self.tuned)
        first, second, third = (part_of(model, probe, self.of_tokens) for model in models)
        parts = (first, second, third)
        if not self.of_tokens:
            return OffsetHead(parts, self.alpha)
        return OffsetTokenHead(Sizes(sum(part.width for part in parts), first.classes), parts, self.alpha)

    def generate(self, *, input_ids: Tensor, attention_mask: Tensor, generation_config: Any) -> Tensor:
        """As `generate` of transformers: the prompts, each followed by what is written.

        The large model's own `generate` with the offset as a logits processor; a black box is asked anew for every token.
        """
        from transformers import LogitsProcessorList

        from expunge.offset.writing import AddOffset, write

        added = AddOffset(self.small, self.tuned, self.alpha, attention_mask)
        if self.black_box:
            return write(self.large, input_ids, attention_mask, generation_config, processor=added)
        return self.large.generate(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config,
            logits_processor=LogitsProcessorList([added]),
        )  # fmt: skip

    def weights(self) -> dict[str, str]:
        """Hash of the weights of each of the three models, in their present precision."""
        own = {"small": weights_sha256(self.small), "tuned": weights_sha256(self.tuned)}
        return {"large": self.large.unknown_weights if self.black_box else weights_sha256(self.large), **own}

    def found_at(self, path: str) -> None:
        """Note where the large model is: a folder's whole path, or a hub id."""
        from expunge.models import is_local

        if path and not self.about.large.path and not self.about.large.copied:
            whole = str(Path(path).expanduser().absolute()) if is_local(path) else path
            self.about = replace(self.about, large=replace(self.about.large, path=whole))

    def account(self, before: dict[str, str]) -> dict[str, Any]:
        """What a run's record says of the ensemble.

        Args:
            before: `weights` before the first step.

        Raises:
            RunError: One of the frozen models is not what it was.
        """
        after = self.weights()
        changed = [name for name in ("large", "small") if before[name] != after[name]]
        if changed:
            raise RunError(f"the weights of the {' and the '.join(changed)} model changed, and they must not.")
        return {
            "alpha": self.alpha,
            "small": self.about.small,
            "share": round(self.share, 6),
            "frozen_passes": round(self.spent, 2),
            "black_box": self.black_box,
            "weights_before": before,
            "weights_after": after,
        }

    def save_pretrained(self, place: str | Path) -> None:
        """Write an offset folder: the small pair, and where the large model is or a copy of it."""
        from expunge.offset.folder import write_folder

        write_folder(self, Path(place))


def with_offset(
    large: Any, *, alpha: float, small: str | None, layers: int | None, copied: bool, auto_class: str,
    trust_remote_code: bool = False,
) -> OffsetModel:  # fmt: skip
    """A model with a small pair beside it whose offset is 0: the two are the same, to the bit.

    A model that has such a pair keeps it, and goes on from there.

    Args:
        large: The model to erase from.
        alpha: Weight of the offset.
        small: Folder or hub id of a small model; None: a copy of the large one's first layers.
        layers: How many.
        copied: Whether `save_pretrained` puts a copy of the large model into the folder.
        auto_class: Name of a transformers auto class.
        trust_remote_code: As in transformers.

    Raises:
        UsageError: The small model cannot be had.
    """
    from expunge.offset.manifest import Large

    if isinstance(large, OffsetModel):
        return large
    first, words = small_model(large, small, layers, auto_class=auto_class, trust_remote_code=trust_remote_code)
    manifest = Manifest(alpha=alpha, auto_class=auto_class, small=words, large=Large(copied=copied))
    return OffsetModel(large, first, copy.deepcopy(first), manifest)
