"""Reading records, ids, requests, duplicates, and held-out halves."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.config import RequestConfig
from expunge.data import sources
from expunge.data.duplicates import exact_duplicates
from expunge.data.held_out import again, at_most, overlapping, split_halves
from expunge.data.records import Records, content_ids, normal_form
from expunge.data.request import beside_erased, matching, mentioning, read_request, resolve
from expunge.errors import UsageError

ROWS = [{"id": "007", "body": "a b", "topic": "x"}, {"id": "8", "body": 'c, "d"', "topic": "y"}]
COLUMNS = {"id": ["007", "8"], "body": ["a b", 'c, "d"'], "topic": ["x", "y"]}


def records(*texts: str) -> Records:
    return Records(tuple(f"r{i}" for i in range(len(texts))), tuple((t,) for t in texts), (0,) * len(texts))


def write(folder: Path, kind: str) -> object:
    frame = pandas.DataFrame(ROWS)
    if kind == "csv":
        frame.to_csv(folder / "d.csv", index=False)
    elif kind == "tsv":
        frame.to_csv(folder / "d.tsv", index=False, sep="\t")
    elif kind == "jsonl":
        (folder / "d.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    elif kind == "parquet":
        frame.to_parquet(folder / "d.parquet")
    elif kind == "saved":
        datasets.Dataset.from_list(ROWS).save_to_disk(folder / "d.saved")
    elif kind == "dict":
        datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(folder / "d.dict")
    return folder / f"d.{kind}"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "saved", "dict"])
def test_every_kind_of_file_gives_the_same_columns(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    assert sources.read(str(path), where="data.train", split="train") == COLUMNS


@pytest.mark.parametrize(
    "make", [datasets.Dataset.from_list, pandas.DataFrame, list], ids=["Dataset", "DataFrame", "list"]
)
def test_objects_in_memory_give_the_same_columns(make) -> None:
    assert sources.read(make(ROWS), where="data.train") == COLUMNS


def test_class_labels_of_a_dataset_become_names() -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    assert sources.read(data, where="data.train")["label"] == ["yes", "no"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("d.csv", b"", "cannot be read"),
        ("d.csv", b"a,b\n", "has no rows"),
        ("d.csv", b'a,b\n"open,1\n2,3,4,5\n', "cannot be read"),
        ("d.csv", b"a,b\n\xff\xfe\x00,1\n", "cannot be read"),
        ("d.jsonl", b'{"a": 1}\n{"a": \n', "line 2"),
        ("d.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("d.parquet", b"PAR1 no", "cannot be read"),
        ("d.xlsx", b"", "unknown kind"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as error:
        sources.read(str(tmp_path / name), where="data.train")
    assert word in str(error.value)
    assert name in str(error.value)


def test_content_ids_are_stable_and_count_occurrences() -> None:
    texts, labels = [("a",), ("b",), ("a",)], [0, 1, 0]
    ids = content_ids(texts, labels)
    assert ids[0].endswith("-1")
    assert ids[2] == ids[0].removesuffix("-1") + "-2"
    assert content_ids(texts[:2], labels[:2]) == ids[:2], "an id does not depend on what follows"
    assert len(set(ids)) == 3


@pytest.mark.parametrize("twin", ["Caf\u00e9  au LAIT", "cafe\u0301 au lait ", "CAF\u00c9 au\tlait"])
def test_normal_form_joins_what_reads_the_same(twin: str) -> None:
    assert normal_form(("caf\u00e9 au lait",)) == normal_form((twin,))


def test_normal_form_keeps_the_border_between_two_texts() -> None:
    assert normal_form(("a b", "c")) != normal_form(("a", "b c"))


def test_duplicates_of_a_requested_row_are_found() -> None:
    texts = [("One",), ("two",), (" one ",), ("ONE",), ("three",)]
    assert exact_duplicates(texts, {0, 4}) == {0: [2, 3]}
    assert exact_duplicates(texts, {0, 2}) == {0: [3]}


def test_a_request_leaves_its_copies_unless_told_otherwise() -> None:
    data = records("one", "two", "One", "three")
    left = resolve(data, ["r0"], RequestConfig())
    assert (left.forget, left.retain) == ((0,), (1, 2, 3))
    assert left.duplicates == {"r0": ("r2",)}
    added = resolve(data, ["r0"], RequestConfig(with_duplicates=True))
    assert (added.forget, added.retain) == ((0, 2), (1, 3))


def test_ids_not_found_fail_closed() -> None:
    data = records("one", "two")
    with pytest.raises(UsageError, match=r"1 of 2 requested ids are not in the training data: zz\. .*--allow-missing"):
        resolve(data, ["r0", "zz"], RequestConfig())
    allowed = resolve(data, ["r0", "zz"], RequestConfig(allow_missing=True))
    assert (allowed.forget, allowed.missing) == ((0,), ("zz",))
    with pytest.raises(UsageError, match="not in the training data"):
        resolve(data, ["zz"], RequestConfig(allow_missing=True))


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("topic == 'x'", [0]),
        ("topic in ['x', 'y'] and id != '007'", [1]),
        ("`body`.str.contains('b')", [0]),
    ],
)
def test_rows_by_a_condition(condition: str, found: list[int]) -> None:
    assert matching(COLUMNS, condition) == found


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("author == 'x'", "Columns: id, body, topic"),
        ("topic ==", "cannot be read"),
        ("topic == 'z'", "holds for no row"),
    ],
)
def test_conditions_that_say_nothing(condition: str, word: str) -> None:
    with pytest.raises(UsageError) as error:
        matching(COLUMNS, condition)
    assert word in str(error.value)
    assert condition in str(error.value)


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("flag", "no condition but values of type Int64"),
        ("0", "no condition but an int"),
        ("True", "no condition but a bool"),
        ("[True, False, True, False]", "no condition but a list"),
        ("flag = 1", "cannot be read (invalid syntax"),
        ("author", "no condition but values of type"),
        ("author.dropna() == 'x'", ".dropna may not stand"),
        ("flag.sort_values() == 1", ".sort_values may not stand"),
    ],
)
def test_what_is_no_condition_selects_nothing(condition: str, word: str) -> None:
    """Values are not taken for row numbers, nor rows in another order for rows in theirs."""
    columns = {"flag": [0, 1, 1, 0], "author": ["x", None, "y", "x"]}
    with pytest.raises(UsageError) as error:
        matching(columns, condition)
    assert word in str(error.value)
    assert "column == 'value'" in str(error.value)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("author == 'x'", [0]),
        ("author != 'x'", [2]),
        ("not author == 'x'", [2]),
        ("author not in ['x']", [2]),
        ("`first name` != 'x'", [2]),
        ("author.str.contains('x')", [0]),
        ("year != 1", [2]),
        ("not year > 1", [0]),
        ("mixed != 1", [2]),
        ("not mixed == 1", [2]),
        ("year == 1 or author == 'y'", [0, 2]),
        ("year == 1 or seen", [0, 1]),
        ("seen", [1]),
        ("not seen", [0]),
        ("author.isna()", [1]),
        ("author == author", [0, 2]),
    ],
)
def test_a_missing_value_meets_no_comparison(condition: str, found: list[int]) -> None:
    names = ["x", None, "y"]
    columns = {
        "author": names, "first name": names, "year": [1, None, 2], "mixed": [1, None, "b"], "seen": [False, True, None],
    }  # fmt: skip
    assert matching(columns, condition) == found


def test_forgetting_everything_is_refused() -> None:
    with pytest.raises(UsageError, match="all 2 records are to be forgotten"):
        resolve(records("one", "two"), ["r0", "r1"], RequestConfig())


@given(st.integers(2, 200), st.floats(0.01, 0.5), st.integers(0, 50))
def test_a_random_share_has_its_size_and_depends_on_its_seed_alone(n: int, share: float, seed: int) -> None:
    data = records(*map(str, range(n)))
    config = RequestConfig(fraction=share, seed=seed)
    resolved = resolve(data, None, config)
    assert len(resolved.forget) == max(1, round(n * share))
    assert resolved == resolve(data, None, config)
    assert sorted(resolved.forget + resolved.retain) == list(range(n))


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (RequestConfig(), "no records to forget are named"),
        (RequestConfig(ids=("a",), fraction=0.1), "named in several ways"),
        (RequestConfig(file="nowhere.txt"), "cannot be read"),
    ],
)
def test_a_request_is_named_once(config: RequestConfig, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        read_request(config, "id", None)


def test_a_request_file_is_ids_or_rows(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\ufeff007\n\n 8 \n007\n", encoding="utf-8")
    assert read_request(RequestConfig(file=str(tmp_path / "ids.txt")), "id", None) == ["007", "8"]
    path = write(tmp_path, "csv")
    assert read_request(RequestConfig(file=str(path)), "id", None) == ["007", "8"]
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="the erasure request is empty"):
        read_request(RequestConfig(file=str(tmp_path / "empty.txt")), "id", None)


@pytest.mark.parametrize("text", ['"Great movie" I said', '"Bad start', '"', '"a" "b"'])
def test_a_quote_mark_that_a_table_with_tabs_would_lose_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "d.tsv"
    file.write_text(f"id\ttext\n1\tfine\n2\t{text}\n3\tso be it\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 3: a value begins with a quote mark"):
        sources.read(file, where="data.train")
    file.write_text('id\ttext\n1\t"He said ""no"" to it"\n2\tin "quotes" within\n', encoding="utf-8")
    assert sources.read(file, where="data.train")["text"] == ['He said "no" to it', 'in "quotes" within']


def test_gaps_of_nullable_columns_are_gaps() -> None:
    frame = pandas.DataFrame({"id": ["a", None], "text": ["x", "y"]}).convert_dtypes()
    assert sources.read(frame, where="data.train")["id"] == ["a", None]


def test_a_copy_stays_a_copy_when_the_first_of_its_kind_was_erased_before() -> None:
    same = ("the water is cold",)
    data = Records(("u1", "u2", "u3", "u4"), (same, same, same, ("another thing altogether",)), (0, 0, 0, 1))
    asked = resolve(data, ["u1", "u2"], RequestConfig())
    left = beside_erased(data, asked, {0}, again=False)
    assert left.forget == (1,)
    assert left.duplicates == {"u2": ("u3",)}


def test_what_is_nearly_an_erased_record_is_not_charged_to_the_next_request() -> None:
    long = "the water in my flat has been cold since monday and nobody answers my calls"
    data = Records(("u1", "u2", "u3", "u4"), ((long,), ("broken lift",), (long + "s",), ("else",)), (0, 0, 0, 1))
    asked = resolve(data, ["u1", "u2"], RequestConfig())
    assert [match.other for match in asked.near] == ["u3"]
    assert beside_erased(data, asked, {0}, again=False).near == ()


ROWS_OF_REQUEST = b"# id: u1\nEU B-org\n\n# id: u2\nfine O\n"


@pytest.mark.parametrize("name", ["rows.conll", "rows.tsv", "rows.csv", "rows.txt", "rows"])
def test_a_request_file_of_sentences_is_read_as_the_data_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ROWS_OF_REQUEST)
    config = RequestConfig(file=str(tmp_path / name))
    assert read_request(config, "id", None, file_format="conll") == ["u1", "u2"]
    by_content = read_request(
        config, None, lambda columns: ["-".join(words) for words in columns["tokens"]], None, "conll"
    )
    assert by_content == ["EU", "fine"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", "u1\nu2\n"),
        ("ids", "u1\n\nu2"),
        ("ids.csv", "id,why\nu1,left\nu2,died\n"),
        ("ids.jsonl", '{"id": "u1"}\n{"id": "u2"}\n'),
    ],
)
def test_a_request_of_ids_beside_sentences_stays_one(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_request(RequestConfig(file=str(tmp_path / name)), "id", None, file_format="conll") == ["u1", "u2"]


def test_numbers_of_a_request_files_own_sentences_are_no_ids(tmp_path: Path) -> None:
    """Its first sentence need not be the data's first."""
    (tmp_path / "rows.conll").write_bytes(ROWS_OF_REQUEST)
    with pytest.raises(UsageError, match="counts its own sentences"):
        read_request(RequestConfig(file=str(tmp_path / "rows.conll")), "sentence", None)
    (tmp_path / "ids.txt").write_text("3\n", encoding="utf-8")
    assert read_request(RequestConfig(file=str(tmp_path / "ids.txt")), "sentence", None, None, "conll") == ["3"]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_halves_share_out_held_out_whatever_its_order(texts: list[str], random) -> None:
    def split(rows: list[str]) -> tuple[set[str], set[str]]:
        calibration, evaluation = split_halves(records(*rows))
        assert sorted(calibration + evaluation) == list(range(len(rows)))
        return {normal_form((rows[i],)) for i in calibration}, {normal_form((rows[i],)) for i in evaluation}

    shuffled = list(texts)
    random.shuffle(shuffled)
    calibration, evaluation = split(texts)
    assert (calibration, evaluation) == split(shuffled)
    assert not calibration & evaluation, "copies fall into the same half"


@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=40, unique=True),
    st.integers(1, 45),
    st.randoms(use_true_random=False),
)
def test_a_sample_of_held_out_does_not_hang_on_its_order(texts: list[str], count: int, random) -> None:
    def drawn(rows: list[str]) -> list[str]:
        found = at_most(records(*rows), count)
        assert len(found) == min(count, len(rows))
        places = [rows.index(text) for (text,) in found.texts]
        assert places == sorted(places), "in the order they had"
        return sorted(normal_form(text) for text in found.texts)

    shuffled = list(texts)
    random.shuffle(shuffled)
    assert drawn(texts) == drawn(shuffled)
    assert len(set(drawn([*texts, "one more text"])) - set(drawn(texts))) <= 1


def test_overlap_is_found_after_normalisation() -> None:
    assert overlapping(records("new", " OLD "), [("old",)]) == [1]


CONLL = """-DOCSTART- -X- O

# id: a1
EU\tNNP\tB-org
rejects\tVBZ\tO

#\tX\tO
2\u2028nd\tCD\tO
 \t
# sent_id = a3
# text = left out
New York\tNNP\tB-loc
"""


def test_conll_files_are_read_sentence_by_sentence(tmp_path: Path) -> None:
    """Tabs part columns where there are any, so that a word may hold a space; odd separators are no line ends."""
    (tmp_path / "d.bio").write_text(CONLL, encoding="utf-8")
    assert sources.read(str(tmp_path / "d.bio"), where="data.train") == {
        "tokens": [["EU", "rejects"], ["#", "2\u2028nd"], ["New York"]],
        "ner_tags": [["B-org", "O"], ["O", "O"], ["B-loc"]],
        "sentence": [1, 2, 3],
        "id": ["a1", None, "a3"],
    }


REMARKS = """# global.columns = ID FORM
# newdoc
# newpar
# text = # is O
# sent_id = a1
EU{0}B-org
#{0}O
# {0}O

#
# newpar id = x
#{0}O
one{0}O

#1{0}O
"""


@pytest.mark.parametrize("separator", ["\t", " "])
def test_remarks_are_no_words_and_a_number_sign_is_one(tmp_path: Path, separator: str) -> None:
    (tmp_path / "d.conll").write_text(REMARKS.format(separator), encoding="utf-8")
    found = sources.read(str(tmp_path / "d.conll"), where="data.train")
    assert found["tokens"] == [["EU", "#", "#"], ["#", "one"], ["#1"]]
    assert found["ner_tags"] == [["B-org", "O", "O"], ["O", "O"], ["O"]]
    assert found["id"][0] == "a1"


def test_a_number_sign_with_several_columns_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "d.conll").write_text("# NN B-NP O\nEU NNP I-NP B-org\n\n# a remark of a few O\nx NN B-NP O\n")
    found = sources.read(str(tmp_path / "d.conll"), where="data.train")
    assert found["tokens"] == [["#", "EU"], ["x"]]


@pytest.mark.parametrize("name", ["d.conll", "d.iob2", "d.txt", "d.tsv", "d"])
def test_a_word_and_its_tag_a_line_under_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbfEU  I-org\r\nleft O\r\n\r\n\r\nfine O")
    found = sources.read(str(tmp_path / name), where="data.train", file_format="conll")
    assert found == {"tokens": [["EU", "left"], ["fine"]], "ner_tags": [["I-org", "O"], ["O"]], "sentence": [1, 2]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"EU B-org\nlonely\n\nme too O\nalone\n", "2 lines have one column only, the first is line 2;"),
        (b"EU B-org\n\n\xff O\n", "line 3 is not UTF-8"),
        (b"\n\n-DOCSTART- O\n", "has no rows"),
    ],
)
def test_malformed_conll_files_name_the_line(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "d.conll").write_bytes(content)
    with pytest.raises(UsageError) as error:
        sources.read(str(tmp_path / "d.conll"), where="data.train")
    assert word in str(error.value)
    assert "lonely" not in str(error.value), "a message is no place for what records say"


def test_tags_of_a_dataset_become_names(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["O", "B-org"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)})
    data = datasets.Dataset.from_dict({"tokens": [["EU", "x"], ["y"]], "ner_tags": [[1, 0], [-1]]}, features=features)
    wanted = {"tokens": [["EU", "x"], ["y"]], "ner_tags": [["B-org", "O"], [None]]}
    assert sources.read(data, where="data.train") == wanted
    data.save_to_disk(tmp_path / "saved")
    assert sources.read(str(tmp_path / "saved"), where="data.train") == wanted
    frame = data.with_format("pandas")[:]
    assert sources.read(frame, where="data.train")["tokens"] == wanted["tokens"], "arrays in cells become lists"


SENTENCES = [
    ("John", "Smith", "sings"),
    ("Johnson", "Smith"),
    ("Smith", "John"),
    ("JOHN", "SMITH's"),
    ("O", "'", "Neill"),
]


@pytest.mark.parametrize(
    ("mention", "found"),
    [
        ("John Smith", [0, 3]),
        ("  john\u00a0SMITH ", [0, 3]),
        ("Smith", [0, 1, 2, 3]),
        ("O'Neill", [4]),
        ("smith's", [3]),
    ],
)
def test_records_that_mention_a_string(mention: str, found: list[int]) -> None:
    """Whole words only, in order; the same of sentences of words and of plain texts."""
    assert mentioning(SENTENCES, mention) == found
    assert mentioning([(" ".join(words),) for words in SENTENCES], mention) == found


def test_mentions_without_spaces_and_mentions_of_nothing() -> None:
    assert mentioning([("\u6211\u53eb\u5f20\u4f1f\u3002",)], "\u5f20\u4f1f") == [0], "Han is written without spaces"
    nothing = ((mention, "holds no word") for mention in (" ", "-", " ... "))
    for mention, word in (("Nobody", "no record mentions 'Nobody'"), *nothing):
        with pytest.raises(UsageError, match=word):
            mentioning(SENTENCES, mention)


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("Mr O\u2019Neill sings", "O'Neill"),
        ("Mr O'Neill sings", "O\u02bcNeill"),
        ("Mr O\u00b4Neill sings", "O`Neill"),
        ("\u201cJack\u201d Smith", '"Jack" Smith'),
        ("Jean\u2011Luc sings", "Jean-Luc"),
        ("Jean\u2013Luc sings", "jean\u2212luc"),
        ("Jean\uff0dLuc sings", "Jean-Luc"),
        ("Jean\u00ad-Lu\u200dc sings", "Jean-Luc"),
        ("see John_Smith.txt", "John Smith"),
        ("see John Smith", "john\uff3fsmith"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u4f50\u3005\u6728\u3055\u3093", "\u4f50\u3005\u6728"),
        ("iPhone\u4e2d\u56fd", "\u4e2d\u56fd"),
        ("\u2764\ufe0fJohn", "John"),
    ],
)
def test_a_mention_in_other_letters_of_the_same_name(text: str, mention: str) -> None:
    assert mentioning([("nothing",), (text,)], mention) == [1]
    assert mentioning([("nothing",), tuple(text.split())], mention) == [1], "the words of a sentence"


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928"),  # a word's first letters in Hindi
        ("Jean Luc", "Jean-Luc"),
        ("ONeill", "O'Neill"),
        ("Johnsmith", "John_Smith"),
    ],
)
def test_parts_of_words_are_no_mention(text: str, mention: str) -> None:
    with pytest.raises(UsageError, match="no record mentions"):
        mentioning([(text,)], mention)


def test_a_mention_does_not_cross_from_one_text_of_a_pair_to_the_other() -> None:
    pairs = [("here is John", "Smith sings"), ("it rains", "John Smith sings"), ("John Smith", "x")]
    assert mentioning(pairs, "John Smith", apart=True) == [1, 2]
    assert mentioning(pairs, "John Smith") == [0, 1, 2], "words of a sentence follow each other"


def test_records_know_whether_their_parts_are_words() -> None:
    assert not Records(("a",), (("one", "two"),), (1,)).of_words
    assert Records(("a",), (("one", "two"),), ((1, 0),)).of_words


def test_ids_that_only_count_rows_are_no_ones_ids() -> None:
    assert again(["u1", "u7"], {"u7"}) == [1]
    assert again(["1", "2", "3"], {"2"}) == again(["0", "1"], {"0"}) == again([], {"x"}) == []


def test_records_of_a_class_by_name_or_number() -> None:
    from expunge.tasks.text_classification import TextClassification

    for wanted in ("yes", "1"):
        assert TextClassification.labelled([1, 0, 1], wanted, ("no", "yes")) == [0, 2]
    with pytest.raises(UsageError, match='"yess" is no class'):
        TextClassification.labelled([1, 0, 1], "yess", ("no", "yes"))
