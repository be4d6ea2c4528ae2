"""What Expunge asks of a task, and which of the registered ones a model is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from expunge import registry
from expunge.data.records import Records
from expunge.errors import Problem, UsageError
from expunge.tasks.base import Batch, Encoded

__all__ = ["Task", "task_for"]


class Task(Protocol):
    """What a record, a unit and a label are for one kind of model; a frozen dataclass of the three first attributes.

    Attributes:
        tokenizer: The model's tokenizer.
        max_length: Tokens a record is cut to.
        label_names: Class names in the model's order.
        auto_class: The auto class of transformers that loads such models.
        architecture: How the names of such models' classes end.
        noun: What such a model is called in messages.
        text_columns: Columns that hold the text where none are named.
        label_column: The label's column likewise; an empty text where records have none.
        other_columns: Text and label columns that are taken instead where the data has these and not the former.
        audits: Audits of a run that names none.
        of_tokens: Whether units are tokens that the model writes, and classes its vocabulary.
    """

    @property
    def tokenizer(self) -> Any: ...
    @property
    def max_length(self) -> int: ...
    @property
    def label_names(self) -> tuple[str, ...]: ...

    auto_class: ClassVar[str]
    architecture: ClassVar[str | tuple[str, ...]]
    noun: ClassVar[str]
    text_columns: ClassVar[tuple[str, ...]]
    label_column: ClassVar[str]
    other_columns: ClassVar[tuple[tuple[tuple[str, ...], str], ...]]
    of_tokens: ClassVar[bool]
    audits: ClassVar[tuple[str, ...]]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init__(self, tokenizer: Any, max_length: int, label_names: tuple[str, ...]) -> None: ...

    @staticmethod
    def settings(model: Any) -> dict[str, Any]:
        """What the task takes of a run's `model` section, beside the attributes."""
        ...

    @staticmethod
    def names(model_config: Any, tokenizer: Any, given: Sequence[str]) -> tuple[str, ...]:
        """Class names in the model's order: its own, or those given."""
        ...

    @staticmethod
    def unsuitable(model_config: Any, tokenizer: Any) -> list[Problem]:
        """What keeps a model of this architecture from being worked with."""
        ...

    @staticmethod
    def read(
        columns: dict[str, list[Any]], text: Sequence[str], label: str, label_names: Sequence[str], *, where: str
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[Any, ...]]:
        """`Records.texts` and `Records.labels` of the columns named, or every problem they have."""
        ...

    @staticmethod
    def labelled(labels: Sequence[Any], wanted: str, label_names: Sequence[str]) -> list[int]:
        """Positions of the records that carry a class (of a tagger: an entity type or a tag)."""
        ...

    def misfits(self, records: Records, where: str) -> list[Problem]:
        """Records of which nothing is left once they are tokenised and cut."""
        ...

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once."""
        ...

    def encode_texts(self, texts: Sequence[Any], labels: Sequence[Any] | None = None) -> Encoded:
        """Tokenise `Records.texts`; without labels every unit gets class 0."""
        ...

    def collate(self, encoded: Encoded, positions: Sequence[int], views: int = 1, length: int | None = None) -> Batch:
        """A padded batch of the records at `positions`, each `views` times."""
        ...

    def entities(self, labels: Any, predictions: Any, offsets: Any) -> Any:
        """(N, 3) entities found right, predicted and true of each record; None where there are none to speak of."""
        ...

    def as_texts(self, given: Sequence[Any]) -> list[tuple[str, ...]]:
        """What a user hands over for scoring, as `Records.texts`."""
        ...

    def by_record(self, texts: Sequence[tuple[str, ...]], encoded: Encoded, values: Any) -> Any:
        """(U, C) values of the units, laid out as the user gave the texts."""
        ...


def task_for(architecture: str) -> type[Task]:
    """The registered task for a model class such as ``BertForTokenClassification``.

    Raises:
        UsageError: There is none; the message names the kinds there are.
    """
    tasks = sorted((registry.find("tasks", name) for name in registry.names("tasks")), key=lambda task: task.of_tokens)
    for task in tasks:
        if architecture.endswith(task.architecture):
            return task
    kinds = " or ".join(f"a fine-tuned {task.noun} ({task.auto_class})" for task in tasks)
    nouns = " or ".join(task.noun for task in tasks)
    raise UsageError(Problem("model.path", f"the model is {architecture}, not a {nouns}", f"Give {kinds}."))
