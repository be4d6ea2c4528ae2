"""Facts and rules as users give them: what is read, what is refused in words, what the commands print."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from expunge import cli
from expunge.deep.knowledge import Rule, Triple
from expunge.deep.reading import parse_atoms, read_knowledge
from expunge.errors import ExpungeError, UsageError

FACTS = [
    {"id": "f1", "subject": "Ann", "relation": "child", "object": "Bob", "question": "Who is Bob?", "answer": "child"},
    {"id": "f2", "subject": "Ann", "relation": "husband", "object": "Carl"},
    {"id": "f3", "subject": "Carl", "relation": "child", "object": "Bob"},
    {"id": "", "subject": "Ann", "relation": "sex", "object": "female", "background": "yes"},
]
RULES = [{"if": "husband(?x, ?y) & child(?x, ?z)", "then": "child(?y, ?z)", "distinct": "yes"}]
EDU = {
    "people": [{"id": 0, "name": "A", "gender": "female"}, {"id": 1, "name": "B", "gender": "male"}],
    "edges": [
        {"id": 5, "src": 0, "rel": "husband", "dst": 1, "q": "Who is B to A?", "a": "husband"},
        {"id": 7, "src": 1, "rel": "wife", "dst": 0, "q": "Who is A to B?", "a": "wife"},
    ],
    "bios": [{"q": "What is the job of A?", "a": "Banker"}],
    "rules": [{"left": [[0, "wife", 1]], "right": [1, "husband", 0]}],
    "targets": [5],
    "minimal_sets": {"5": [[5, 7]]},
}  # fmt: skip


def csv_of(rows: list[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names)] + [",".join(f'"{row.get(name, "")}"' for name in names) for row in rows]
    return "\n".join(lines) + "\n"


def written(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_csv_json_lines_and_one_json_of_both_say_the_same(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in FACTS)
    triples = [
        {"if": [["?x", "husband", "?y"], ["?x", "child", "?z"]], "then": ["?y", "child", "?z"], "distinct": True}
    ]
    read = [
        read_knowledge(written(tmp_path, "f.csv", csv_of(FACTS)), written(tmp_path, "r.csv", csv_of(RULES))),
        read_knowledge(written(tmp_path, "f.jsonl", lines), written(tmp_path, "r.json", RULES)),
        read_knowledge(written(tmp_path, "f.json", FACTS), written(tmp_path, "t.json", triples)),
        read_knowledge(written(tmp_path, "own.json", {"facts": FACTS}), written(tmp_path, "r.csv", csv_of(RULES))),
        read_knowledge(written(tmp_path, "both.json", {"facts": FACTS, "rules": RULES})),
    ]
    for found in read:
        assert found.base.facts == tuple(Triple(r["subject"], r["relation"], r["object"]) for r in FACTS[:3])
        assert found.base.background == (Triple("Ann", "sex", "female"),)
        assert found.ids == ("f1", "f2", "f3")
        assert found.questions == (("Who is Bob?", "child"), None, None)
        premises = (Triple("?x", "husband", "?y"), Triple("?x", "child", "?z"))
        assert found.base.rules == (Rule(premises, Triple("?y", "child", "?z"), distinct=True),)
        assert found.positions(["f3", "child(Ann, Bob)"], "--target") == (2, 0)


def test_ids_are_row_numbers_where_there_are_none(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "id"} for row in FACTS]
    found = read_knowledge(written(tmp_path, "f.csv", csv_of(rows)), written(tmp_path, "r.csv", csv_of(RULES)))
    assert found.ids == ("1", "2", "3")


def test_edu_relat_in_small(tmp_path: Path) -> None:
    found = read_knowledge(written(tmp_path, "edu.json", EDU))
    assert found.ids == ("5", "7", "bio-0")
    assert found.base.facts[2] == Triple("A", "job", "Banker")
    assert found.questions[0] == ("Who is B to A?", "husband")
    gendered = (Triple("?0", "wife", "?1"), Triple("?0", "gender", "male"))
    assert found.base.rules == (Rule(gendered, Triple("?1", "husband", "?0"), distinct=True),)
    assert found.targets == (0,)
    assert found.published == {0: (frozenset({0, 1}),)}
    assert found.base.closure.of[0][0].premises[0] == 1


@pytest.mark.parametrize(
    ("text", "atoms"),
    [
        ("child(?x, New York)", [Triple("?x", "child", "New York")]),
        (" is friend of ( Ann , ?y ) and a(b,c)", [Triple("Ann", "is friend of", "?y"), Triple("b", "a", "c")]),
        (["?x", "r", "?y"], [Triple("?x", "r", "?y")]),
    ],
)
def test_patterns_are_read(text: Any, atoms: list[Triple]) -> None:
    assert parse_atoms(text, "--rules", "row 1") == atoms


def row(**changes: Any) -> dict[str, Any]:
    return {**FACTS[0], **changes}


def rule(**changes: Any) -> dict[str, Any]:
    return {**RULES[0], **changes}


@pytest.mark.parametrize(
    ("facts", "rules", "said"),
    [
        ([row(subject="")], RULES, "row 1 has no subject"),
        ([row(object=None, relation=" ")], RULES, "row 1 has no relation and no object"),
        ([row(object=["Bob"])], RULES, "row 1 has no object"),
        ([row(subject="?x")], RULES, '"?x" begins with ?'),
        ([row(), row(id="f9")], RULES, "1 facts stand twice, such as child(Ann, Bob)"),
        ([row(), row(object="Cy")], RULES, '1 ids stand in several rows, such as "f1"'),
        ([row(id="")], RULES, "1 facts have no id"),
        ([row(answer="")], RULES, "row 1 has no answer"),
        ([row(background="perhaps")], RULES, 'background is "perhaps"'),
        ([row(background="yes")], RULES, "all facts are background"),
        ([{"subject": "a", "relation": "b"}], RULES, 'no column "object"'),
        ([], RULES, '"facts" is empty'),
        ({"a": 1}, RULES, '"facts" is no list of objects'),
        (FACTS, None, '"rules" is missing'),
        (FACTS, ["x"], '"rules" is no list of objects'),
        (FACTS, [rule(**{"if": "child(?x ?y)"})], 'row 1, if: "child(?x ?y)" cannot be read'),
        (FACTS, [rule(**{"if": ""})], "row 1, if: it is empty"),
        (FACTS, [rule(**{"if": [["?x", "child"]]})], "is no list of triples"),
        (FACTS, [rule(**{"if": "child(?x, ?y) child(?y, ?z)"})], '"child(?y, ?z)" cannot be read'),
        (FACTS, [rule(then="child(?y, ?q)")], "?q stands in the conclusion and in no premise"),
        (FACTS, [rule(then="a(?x, ?y), b(?x, ?y)")], "2 conclusions"),
        (FACTS, [rule(distinct="maybe")], 'distinct is "maybe"'),
        (FACTS, [{"if": "child(?x, ?y)"}], 'no column "then"'),
    ],
)  # fmt: skip
def test_bad_facts_and_rules_are_refused_in_words(tmp_path: Path, facts: Any, rules: Any, said: str) -> None:
    whole = {"facts": facts} if rules is None else {"facts": facts, "rules": rules}
    with pytest.raises(UsageError) as error:
        read_knowledge(written(tmp_path, "both.json", whole))
    assert said in str(error.value)
    assert all(problem.way_out for problem in error.value.problems)


def test_problems_of_facts_and_rules_are_told_at_once(tmp_path: Path) -> None:
    bad = [row(subject="")] * 9
    with pytest.raises(UsageError) as error:
        read_knowledge(written(tmp_path, "both.json", {"facts": bad, "rules": [rule(then="")]}))
    said = [str(problem) for problem in error.value.problems]
    assert any("row 1, then: it is empty" in one for one in said)
    assert any("more problems of this kind" in one for one in said)
    assert len(said) <= 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("rules"), "rules: input should be"),
        (lambda v: v["people"][0].update(gender="?"), "people.0.gender"),
        (lambda v: v["people"][1].update(name="A"), "two have one name or id"),
        (lambda v: v["edges"][0].update(src=9), "edge 5 names person 9"),
        (lambda v: v["edges"][1].update(src=0, rel="husband", dst=1), "two say the same"),
        (lambda v: v["bios"][0].update(q="Job?"), '"Job?" is no question'),
        (lambda v: v["bios"].append(v["bios"][0]), "bios: two say the same"),
        (lambda v: v["targets"].append(99), "fact 99 is named"),
        (lambda v: v["rules"][0].update(right=[3, "husband", 0]), "someone no premise names"),
        (lambda v: v.update(minimal_sets=[1]), "minimal_sets"),
    ],
)
def test_a_broken_edu_relat_is_refused_in_words(tmp_path: Path, change: Any, said: str) -> None:
    values = copy.deepcopy(EDU)
    change(values)
    with pytest.raises(UsageError) as error:
        read_knowledge(written(tmp_path, "edu.json", values))
    assert said in str(error.value)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    facts=st.lists(st.fixed_dictionaries({"subject": JUNK, "relation": JUNK, "object": JUNK}, optional={"id": JUNK}))
    | JUNK,
    rules=st.lists(st.fixed_dictionaries({"if": JUNK, "then": JUNK}, optional={"distinct": JUNK})) | JUNK,
)
def test_whatever_json_is_given_it_is_read_or_refused(tmp_path: Path, facts: Any, rules: Any) -> None:
    found = None
    with contextlib.suppress(UsageError):  # any other error fails the test
        found = read_knowledge(written(tmp_path, "junk.json", {"facts": facts, "rules": rules}))
    assert found is None or len(found.ids) == len(found.base.facts) == len(found.questions) > 0


@pytest.mark.parametrize(
    "content", ["", "[", "{", "null", "[[[[", '{"a": 1}', "a,b\n1,2,3\n", "\x00\x01", "[" * 100_000]
)
@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.jsonl"])
def test_files_that_are_no_tables_are_refused(tmp_path: Path, name: str, content: str) -> None:
    rules = written(tmp_path, "r.csv", csv_of(RULES))
    with pytest.raises(UsageError):
        read_knowledge(written(tmp_path, name, content), rules)
    with pytest.raises(UsageError):
        read_knowledge(written(tmp_path, "f.csv", csv_of(FACTS)), written(tmp_path, name, content))


def test_the_plan_command_prints_writes_and_refuses(tmp_path: Path) -> None:
    """f3 follows from f1 and f2; both sets {f1, f3} and {f2, f3} leave as much, so the facts that come first go."""
    facts, rules = written(tmp_path, "f.csv", csv_of(FACTS)), written(tmp_path, "r.csv", csv_of(RULES))
    out = tmp_path / "ids.txt"
    run = CliRunner().invoke(
        cli.app, ["deep", "plan", str(facts), "--rules", str(rules), "--target", "f3", "--out", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert "2 facts must go (one of 2 smallest sets" in run.stdout
    assert "child(Ann, Bob), husband(Ann, Carl) -> child(Carl, Bob)" in run.stdout
    assert out.read_text() == "f3\nf1\n"
    shown = CliRunner().invoke(cli.app, ["deep", "plan", str(facts), "--rules", str(rules), "--target", "f3", "--json"])
    values = json.loads(shown.stdout)
    assert [one["id"] for one in values["forget"]] == ["f3", "f1"]
    assert (values["known"], values["derivable"], values["lost"], values["complete"]) == (3, 3, [], True)
    for words, said in (
        (["--target", "child(Carl, Bo)"], 'Did you mean "child(Carl, Bob)"?'),
        ([], "no fact is named"),
        (["--target", "sex(Ann, female)"], "is a background fact"),
        (["--target", "f3", "--out", str(out)], "exists already"),
    ):
        with pytest.raises(ExpungeError) as error:
            cli.app(["deep", "plan", str(facts), "--rules", str(rules), *words], standalone_mode=False)
        assert said in str(error.value)


def test_idle_relations_are_named(tmp_path: Path) -> None:
    rules = [*RULES, {"if": "newphe(?x, ?y)", "then": "child(?y, ?x)"}]
    found = read_knowledge(written(tmp_path, "both.json", {"facts": FACTS, "rules": rules}))
    assert found.idle == ["newphe"]
