"""Conditions on columns look, and do nothing else: they may come from somebody else's config or record."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge.data.condition import holds

COLUMNS = {
    "author": ["u1", "u17", None],
    "my name": ["a b", "c", ""],
    "year": ["2019", "2020", "2021"],
}


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("author == 'u17'", [1]),
        ("author != 'u17'", [0]),
        ("author in ['u1', 'u17'] and year >= '2020'", [1]),
        ("author not in ('u1',)", [1]),
        ("~(year == '2020') | (author == 'u17')", [0, 1, 2]),
        ("not author.isna()", [0, 1]),
        ("`my name` == 'c'", [1]),
        ("`my name`.str.len() > 1", [0]),
        ("author.str.startswith('u1') and year.astype('int') + 1 > 2020", [1]),
        ("author.str.contains('U', case=False)", [0, 1]),
        ("2018 < year.astype('int') < 2020", [0]),
        ("author == 'x.system(1)'", []),
    ],
)
def test_it_holds_for(condition: str, rows: list[int]) -> None:
    assert holds(COLUMNS, condition).nonzero()[0].tolist() == rows


@pytest.mark.parametrize(
    "condition",
    [
        "author.to_csv('written')",
        "author.isin.__globals__.get('pandas').io.common.os.system('touch written') == 0",
        "author.str.__class__ == 1",
        "author.map(print) == 1",
        "author.eval('1')",
        "__import__('os').system('touch written') == 0",
        "(lambda: 1)() == 1",
        "[open('written', 'w') for _ in author]",
        "f'{author.to_csv(\"written\")}' == ''",
        "author[author.to_csv('written')] == 1",
        "author == 'u1' # \u2028author.to_csv('written')",
        "author == 'u1'\nauthor.to_csv('written')",
        "author = 'u1'",
        "9 ** 9 ** 9 ** 9 == 1",
        "@author == 1",
    ],
)
def test_it_does_nothing_but_look(condition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, SyntaxError)):
        holds(COLUMNS, condition)
    assert not list(tmp_path.iterdir())
