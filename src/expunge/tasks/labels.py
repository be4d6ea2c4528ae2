"""Label values of any kind -> class numbers of the model."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

from expunge.data.records import Records
from expunge.errors import Problem, UsageError
from expunge.tasks.base import AUDITS

__all__ = ["OfClasses", "class_names", "class_numbers"]

_SHOWN = 40  # characters of a value: where columns are mixed up, it is a training text


def class_names(model_config: Any, given: Sequence[str]) -> tuple[str, ...]:
    """Class names in the model's order: its own, or those given.

    Raises:
        UsageError: Too few are given, too many, or one twice; or the model has none of its own to tell its classes apart.
    """
    count = model_config.num_labels
    if given:
        if len(given) != count or len(set(given)) != count:
            what = f"{len(set(given))} different names are given for {count} classes"
            raise UsageError(Problem("data.labels", what, "Give every class one name, in the model's order."))
        return tuple(given)
    own = tuple(str(model_config.id2label.get(i, i)) for i in range(count))
    if twice := [name for name in own if own.count(name) > 1]:
        what = f'it names "{twice[0]}" twice among its classes, so labels cannot be told apart'
        raise UsageError(Problem("model.path", what, "Give each class its own name, in config.json or with --labels."))
    return own


class OfClasses:
    """What tasks have in common whose units have one of a model's classes: text classification and tagging."""

    other_columns: ClassVar[tuple[tuple[tuple[str, ...], str], ...]] = ()
    of_tokens: ClassVar[bool] = False
    audits: ClassVar[tuple[str, ...]] = AUDITS

    @staticmethod
    def settings(model: Any) -> dict[str, Any]:
        """Nothing."""
        del model
        return {}

    @staticmethod
    def names(model_config: Any, tokenizer: Any, given: Sequence[str]) -> tuple[str, ...]:
        """As `class_names`."""
        del tokenizer
        return class_names(model_config, given)

    def misfits(self, records: Records, where: str) -> list[Problem]:
        """None: something of every record stays."""
        del records, where
        return []


def class_numbers(values: Sequence[Any], label_names: Sequence[str], *, where: str, of: str = "records") -> list[int]:
    """Class numbers of label values: names as in `label_names`, or numbers 0 ... C-1.

    Where a name is itself a number ("1" to "5" stars), values are read as names only.

    Args:
        values: One value a unit.
        label_names: Class names in the model's order.
        where: Setting and column, for messages.
        of: What has the labels, for messages.

    Raises:
        UsageError: Values that are neither; the message shows the first of them, cut to 40 characters.
    """
    number_of = {name: number for number, name in enumerate(label_names)}
    if not any(name.strip().isdigit() for name in label_names):
        number_of.update({str(number): number for number in range(len(label_names))})
    found = [number_of.get(_as_name(value)) for value in values]
    unknown = list(dict.fromkeys(repr(value) for value, number in zip(values, found, strict=True) if number is None))
    if unknown:
        count = sum(number is None for number in found)
        shown = unknown[0] if len(unknown[0]) <= _SHOWN else f"{unknown[0][:_SHOWN]}..."
        if more := len(unknown) - 1:
            shown += f" and {more} other value{'s' if more > 1 else ''}"
        names = ", ".join(label_names[:12]) + (" ..." if len(label_names) > 12 else "")
        way_out = (
            f"The model knows {len(label_names)} classes: {names} (or their numbers). "
            "Mend the labels, or give the names in the model's order with data.labels (--labels)."
        )
        raise UsageError(Problem(where, f"{count} {of} have labels the model does not know: {shown}", way_out))
    return [number for number in found if number is not None]


def _as_name(value: Any) -> str:
    """A label as text: whole numbers without their decimals; what is neither text nor a whole number as no label."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return ""
