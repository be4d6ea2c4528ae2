"""A folder in which commands and examples of the docs run as printed: tiny models and data under the names they use."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import Job
from expunge import cli

ROOT = Path(__file__).parent.parent

NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\n$")
"""Stands before a block that no test runs, and says why; a code host and the site leave it out."""

ELSEWHERE = {
    "make ": "hours, or the tests themselves",
    "pip install": "tests/test_packaging.py installs the wheel",
    "python3 -m venv": "tests/test_packaging.py makes an environment",
}
"""Lines that are not run, and why."""

PRINTED = {
    "'John Smith'": "river", '"John Smith"': "river", "--forget-label person": "--forget-label machine",
    '"u17"': '"r1-0000"', '"u18"': '"r1-0001"', '"q17"': '"q017"', '"q3"': '"q003"',
}  # fmt: skip
"""What the docs print for the reader -> what the tiny data have."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: ``sh``, ``python`` or whatever stands behind the fence.
        text: What is in it.
        not_run: Why it is not run, where the page says so.
    """

    kind: str
    text: str
    not_run: str | None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
        told = NOT_RUN.search(text[: match.start()])
        found.append(Block(match[1], match[2], told[1] if told else None))
    return found


def commands(text: str) -> list[str]:
    """The lines that call Expunge, continued ones joined, comments left out."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("expunge ")]


@dataclass
class Stage:
    """One page's folder.

    Attributes:
        folder: Where everything lies; the working folder meanwhile.
        job: The tiny classifier with its data.
        first: Options of the page's first run or check: what ``...`` stands for.
    """

    folder: Path
    job: Job
    first: list[str] = field(default_factory=list)

    def lay(self) -> None:
        """The classifier's models, data and request."""
        for name, target in {
            "my-model": self.job.model,
            "my-base": self.job.base,
            "other-model": self.job.model,
        }.items():
            (self.folder / name).symlink_to(target)
        (self.folder / "benchmarks").symlink_to(ROOT / "benchmarks")
        recipe = "epochs = 2\nlearning_rate = 1e-3\nbatch_size = 16\n"
        (self.folder / "recipe.toml").write_text(recipe, encoding="utf-8")
        for name, source in (
            ("train.csv", self.job.train),
            ("backup.csv", self.job.train),
            ("test.csv", self.job.held_out),
        ):
            with source.open(encoding="utf-8", newline="") as file:
                rows = [
                    {**row, "key": row["id"], "body": row["text"], "topic": row["label"]}
                    for row in csv.DictReader(file)
                ]
            with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        ids = self.job.ids.read_text(encoding="utf-8").split()
        wanted = {
            "ids": ids,
            "first": ids[:8],
            "second": ids[8:16],
            "third": ids[16:],
            "next": [f"r1-{n:04d}" for n in range(30, 38)],
        }
        for name, own in wanted.items():
            (self.folder / f"{name}.txt").write_text("\n".join(own) + "\n", encoding="utf-8")

    def lay_for(self, text: str) -> None:
        """Data of a tagger or a language model in the place of the classifier's, where a command is about one."""
        if "my-tagger" in text:
            self._lay_tagger()
        elif "my-llm" in text:
            self._lay_llm()

    def _lay_tagger(self) -> None:
        from expunge.testing import tiny_classifier, tiny_tagger, tiny_tokenizer, toy_sentences

        if not (self.folder / "my-tagger").exists():
            for name, model in {"my-tagger": tiny_tagger(), "my-tagger-base": tiny_classifier(seed=5).bert}.items():
                model.save_pretrained(self.folder / name)
                tiny_tokenizer().save_pretrained(self.folder / name)
        for name, seed in (("train", 1), ("dev", 2)):
            rows = toy_sentences(120, seed=seed)
            _write_lines(self.folder / f"{name}.jsonl", rows)
            sentences = ["\n".join(map(" ".join, zip(row["tokens"], row["ner_tags"], strict=True))) for row in rows]
            (self.folder / f"{name}.conll").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
        (self.folder / "numbers.txt").write_text("1\n2\n3\n", encoding="utf-8")

    def _lay_llm(self) -> None:
        from expunge.testing import byte_tokenizer, tiny_causal, toy_answers

        if not (self.folder / "my-llm").exists():
            tiny_causal().save_pretrained(self.folder / "my-llm")
            byte_tokenizer().save_pretrained(self.folder / "my-llm")
        rows = toy_answers(90, seed=6)
        _write_lines(self.folder / "train.jsonl", rows[:60])
        _write_lines(self.folder / "held-out.jsonl", rows[60:])
        (self.folder / "ids.txt").write_text("".join(f"{row['id']}\n" for row in rows[:6]), encoding="utf-8")

    def ran(self, *names: str) -> None:
        """One run, under each of these names."""
        start = (
            "--model my-model --data train.csv --id id --forget ids.txt --held-out test.csv --set training.min_steps=4"
        )
        self.expunge(f"expunge run {start} --set audit.bootstrap=50 --out {names[0]}")
        self.first = []  # it is no run of the page
        for name in names[1:]:
            shutil.copytree(self.folder / names[0], self.folder / name)

    def run(self, block: Block) -> None:
        """Every line of a shell block: Expunge in this process, all else in a shell."""
        text = block.text.replace("\\\n", " ")
        others: list[str] = []
        for line in [*text.splitlines(), "expunge --version"]:
            if line.startswith("expunge "):
                if others:
                    subprocess.run(["bash", "-ec", "\n".join(others)], cwd=self.folder, check=True, capture_output=True)
                    others.clear()
                self.expunge(line)
            elif not line.startswith(tuple(ELSEWHERE)):
                others.append(line)

    def words(self, line: str) -> list[str]:
        """A line's arguments, with ``...`` and what is printed for the reader filled in."""
        for printed, own in PRINTED.items():
            line = line.replace(printed, own)
        words = shlex.split(line, comments=True)[1:]
        if "..." in words:
            place = words.index("...")
            given = {word for word in words if word.startswith("--")}
            pairs = [self.first[i : i + 2] for i in range(0, len(self.first), 2)]
            words[place : place + 1] = [word for name, value in pairs if name not in given for word in (name, value)]
        elif not self.first and words[:1] in (["run"], ["check"]):
            pairs = [words[i : i + 2] for i in range(1, len(words), 2)]
            self.first = [word for name, value in pairs if name != "--out" for word in (name, value)]
        return [self._head() if word == "5f0c..." else word for word in words]

    def expunge(self, line: str) -> None:
        """One command; it must end well."""
        words = self.words(line)
        self.lay_for(" ".join(words))
        target = Path(self.folder / "printed.txt")
        if ">" in words:
            target = self.folder / words[words.index(">") + 1]
            words = words[: words.index(">")]
        if "--out" in words and words[0] != "bench":
            written = self.folder / words[words.index("--out") + 1]  # by a command before
            written.unlink() if written.is_file() else shutil.rmtree(written, ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch, target.open("w", encoding="utf-8") as file:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["expunge", *words])
            with contextlib.redirect_stdout(file), pytest.raises(SystemExit) as ended:
                cli.main()
        assert not ended.value.code, line

    def _head(self) -> str:
        """The hash of the newest link of the history in `erased-3`, which its own run printed."""
        newest = sorted((self.folder / "erased-3" / "erasure").glob("*.json"))[-1]
        return json.loads(newest.read_text(encoding="utf-8"))["sha256"]


def _write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
