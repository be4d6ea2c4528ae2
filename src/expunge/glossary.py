"""What figures of a report mean, for readers who do not know the field's words."""

from __future__ import annotations

from expunge.record import RunRecord

__all__ = ["explained"]

_MEANINGS = {
    "answer probability": "geometric mean of the probabilities of an answer's tokens, 0 to 1",
    "extraction strength": "share of an answer that the model completes by itself from what stands before, 0 to 1",
    "exact memorisation": "share of an answer's tokens that are the model's first choice",
    "ROUGE-L recall": "share of the true answer's words that stand in what the model writes, in their order",
    "truth ratio": (
        "R is the probability of false answers over that of the true one, each normalised for length: 0, the truth is "
        "known; 1, it cannot be told from falsehood"
    ),
    "forget quality": (
        "chance that two models that agree show so large a distance between their truth ratios; high is like retrained"
    ),
    "Min-K": "an attack by the least probable fifth of a record's tokens",
    "Min-K++": "the same, each token measured against the whole distribution at its place",
    "zlib": "an attack by the loss beside the compressed size of the text",
    "PrivLeak": "the attack's AUC against retrained models': 0 the same, below 0 remembered, above 0 over-forgotten",
    "reference attack": "an attack by how much likelier a record is than under the base model",
    "gradient norm": "an attack by the size of a record's gradient, which is small for records trained on",
    "records turned": (
        "records with fewer (wrong) or more (right) of their labels, words or tokens predicted than by the original"
    ),
    "records more exposed": "records that are easier to recognise as trained on than before",
}  # fmt: skip


def explained(record: RunRecord) -> list[tuple[str, str]]:
    """(word, meaning) of what this record measures, where it is no everyday word."""
    names = {m.name for m in record.measurements}
    words = [word for word in _MEANINGS if any(_stands(word, name) for name in names)]
    return [(word, _MEANINGS[word]) for word in words]


def _stands(word: str, name: str) -> bool:
    return name == word or any(name.startswith(f"{word}{end}") for end in (" ", ",", ":")) or f" of {word}" in name
