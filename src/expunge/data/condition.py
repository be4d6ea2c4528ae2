"""Which rows a condition on columns holds for; a missing value meets no comparison, as in SQL."""

from __future__ import annotations

import ast
import tokenize
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
from pandas.core.computation.parsing import clean_backtick_quoted_toks, clean_column_name, tokenize_string

if TYPE_CHECKING:
    from expunge.data.sources import Columns

__all__ = ["holds"]

_PLAIN = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.Compare, ast.cmpop, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple, ast.keyword,
)  # fmt: skip
"""What a condition is made of, besides `_OF_COLUMNS`."""

_OF_COLUMNS = frozenset({
    "str", "contains", "startswith", "endswith", "match", "fullmatch", "lower", "upper", "casefold", "title", "strip",
    "lstrip", "rstrip", "len", "count", "find", "slice", "isdigit", "isnumeric", "isdecimal", "isalpha", "isalnum",
    "isspace", "islower", "isupper", "istitle", "isna", "isnull", "notna", "notnull", "isin", "between", "astype", "abs",
    "round", "duplicated", "dt", "date", "year", "month", "day", "hour", "minute", "second", "weekday", "quarter",
})  # fmt: skip
"""What may stand behind a dot. pandas would call anything: `to_csv`, or whatever Python reaches from a method."""


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

    Comparisons, ``in``, ``and``, ``or``, ``not``, arithmetic, constants, columns, and of these a few methods that only
    look (``author.str.startswith("u")``, ``author.isna()``). Nothing else is evaluated: a condition may come from
    somebody else's config or record.

    Raises:
        ValueError: It is no condition: it gives something else than a truth value for each row, or asks for more than
            the above. Whatever else pandas raises means that it cannot be read.
    """
    _only_looks(condition)
    frame = pandas.DataFrame(columns).convert_dtypes()
    own = {clean_column_name(name): _Column(frame[name]) for name in frame.columns}
    found: Any = frame.eval(condition, engine="python", resolvers=[own], local_dict={}, global_dict={})
    if not isinstance(found, pandas.Series):
        kind = type(found).__name__
        raise ValueError(f"it is no condition but {'an' if kind[0] in 'aeiou' else 'a'} {kind}")
    found = found.convert_dtypes()
    if not pandas.api.types.is_bool_dtype(found):
        raise ValueError(f"it is no condition but values of type {found.dtype}")
    return found.to_numpy(dtype=bool, na_value=False)


def _only_looks(condition: str) -> None:
    if len(condition.splitlines()) > 1:  # pandas takes each by itself, comments and strings over several lines or not
        raise ValueError("it is more than one line")
    quoted = tokenize.untokenize(clean_backtick_quoted_toks(token) for token in tokenize_string(condition))
    for node in ast.walk(ast.parse(quoted.strip(), mode="eval")):
        if isinstance(node, ast.Attribute):
            if node.attr not in _OF_COLUMNS:
                raise ValueError(f".{node.attr} may not stand in a condition")
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Attribute):
                raise ValueError(f"{ast.unparse(node.func)}(...) may not stand in a condition")
        elif not isinstance(node, _PLAIN):
            what = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
            raise ValueError(f"{what} may not stand in a condition")
