"""Which rows a condition on columns holds for; a missing value meets no comparison, as in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
from pandas.core.computation.parsing import clean_column_name

if TYPE_CHECKING:
    from expunge.data.sources import Columns

__all__ = ["holds"]


class _Column(pandas.Series):
    """A column of which comparisons with a missing value are missing; pandas has them False, and True for ``!=``."""

    @property
    def _constructor(self) -> Any:
        return _Column

    def _known(self, found: Any, other: Any = None) -> Any:
        missing = self.isna()
        if isinstance(other, pandas.Series):
            missing = missing | other.isna()
        return pandas.Series(found.astype("boolean").mask(missing))

    def isin(self, values: Any) -> Any:  # pandas also reads == and != with a string by it
        return self._known(super().isin(values))

    def __eq__(self, other: object) -> Any:
        return self._known(super().__eq__(other), other)

    def __ne__(self, other: object) -> Any:
        return self._known(super().__ne__(other), other)

    def __lt__(self, other: Any) -> Any:
        return self._known(super().__lt__(other), other)

    def __le__(self, other: Any) -> Any:
        return self._known(super().__le__(other), other)

    def __gt__(self, other: Any) -> Any:
        return self._known(super().__gt__(other), other)

    def __ge__(self, other: Any) -> Any:
        return self._known(super().__ge__(other), other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def holds(columns: Columns, condition: str) -> np.ndarray:
    """(N,) bool: whether a condition, in the language of `pandas.DataFrame.eval`, holds for each row.

    Raises:
        ValueError: It is no condition: it gives something else than a truth value for each row. Whatever else pandas
            raises means that it cannot be read.
    """
    frame = pandas.DataFrame(columns).convert_dtypes()
    own = {clean_column_name(name): _Column(frame[name]) for name in frame.columns}
    found: Any = frame.eval(condition, engine="python", resolvers=[own], local_dict={}, global_dict={})
    if not isinstance(found, pandas.Series):
        kind = type(found).__name__
        raise ValueError(f"it is no condition but {'an' if kind[0] in 'aeiou' else 'a'} {kind}")
    found = found.convert_dtypes()
    if not pandas.api.types.is_bool_dtype(found):
        raise ValueError(f"it is no condition but values of type {found.dtype}")
    if not found.index.equals(frame.index):
        raise ValueError("it speaks of other rows than the data's, or of another order")
    return found.to_numpy(dtype=bool, na_value=False)
