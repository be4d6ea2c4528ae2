"""How long and how much memory the way to the first step takes on a large data set: `python benchmarks/scale.py 1000000 csv`.

Makes the records (about 20 words each, with exact and near copies of some) and a small untrained model, then runs the real
command in a process of its own and prints its seconds and peak memory as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_SYLLABLES = ("ba", "de", "ki", "lo", "mu", "sha", "tre", "vi", "zo", "qua", "ren", "stil", "no", "fa", "gru", "pe")
WORDS = ["".join(parts) for size in (2, 3, 4) for parts in itertools.product(_SYLLABLES, repeat=size)]
NAMES = ("water", "machine", "music")
SHORT = ["--set", "audit.bootstrap=20", "--set", "training.epochs=0.1", "--set", "training.min_steps=2"]
EVERY = 1000  # one record in so many has a copy that differs in white space, and one that differs in a word


def rows(count: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """(id, text, label) of records, some of them copies of ones before."""
    rng = np.random.default_rng(seed)
    before = ""
    for number in range(count):
        if number % EVERY == 1:
            text = before.upper() + " "
        elif number % EVERY == 2:
            text = before + " again"
        else:
            drawn = rng.zipf(
                1.15, size=int(rng.integers(15, 26))
            )  # few words are common and most are rare, as in a language
            text = " ".join([WORDS[i % len(WORDS)] for i in drawn])
        if number % EVERY == 0:
            before = text
        yield f"r{seed}-{number:07}", text, NAMES[int(rng.integers(3))]


def write(path: Path, count: int, seed: int = 0) -> Path:
    """A file of records, CSV or Parquet by its suffix."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8") as file:
            file.write("id,text,label\n")
            file.writelines(f"{i},{text},{label}\n" for i, text, label in rows(count, seed))
    else:
        import pyarrow
        import pyarrow.parquet

        ids, texts, labels = zip(*rows(count, seed), strict=True)
        table = pyarrow.table({"id": list(ids), "text": list(texts), "label": list(labels)})
        pyarrow.parquet.write_table(table, path)
    return path


def prepared(folder: Path, count: int, kind: str, asked: int) -> list[str]:
    """Options of a run over `count` records of which `asked` are to be forgotten; files are made where they are not there."""
    from expunge.testing import tiny_classifier, tiny_tokenizer

    if not (folder / "model").is_dir():
        tiny_classifier().save_pretrained(folder / "model")
        tiny_tokenizer().save_pretrained(folder / "model")
    data, held, ids = folder / f"train-{count}.{kind}", folder / "held.csv", folder / f"ids-{count}.txt"
    if not data.exists():
        write(data, count)
    if not held.exists():
        write(held, 2000, seed=1)
    ids.write_text("\n".join(f"r0-{i:07}" for i in range(0, count, count // asked)), encoding="utf-8")
    (folder / "salt").write_bytes(b"a salt for measuring, no secret")
    return ["--model", str(folder / "model"), "--data", str(data), "--id", "id", "--held-out", str(held),
            "--forget", str(ids), "--salt-file", str(folder / "salt")]  # fmt: skip


def measured(words: list[str]) -> dict[str, float]:
    """Seconds, peak memory in GiB and exit code of `expunge` in a process of its own, on one thread."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "expunge", *words], env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "gib": round(used.ru_maxrss / 2**20 / (1024 if sys.platform == "darwin" else 1), 2),
    }


def main() -> None:
    """Measure one command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=int)
    parser.add_argument("kind", choices=("csv", "parquet"))
    parser.add_argument("--request", type=int, default=1000, help="records to forget")
    parser.add_argument("--command", choices=("check", "run"), default="check")
    parser.add_argument("--work", type=Path, default=None, help="folder for the data; kept")
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="expunge-scale-"))
    work.mkdir(parents=True, exist_ok=True)
    words = [given.command, *prepared(work, given.records, given.kind, given.request)]
    if given.command == "run":
        words += ["--out", str(Path(tempfile.mkdtemp(dir=work)) / "out"), *SHORT]
    print(json.dumps({"records": given.records, "kind": given.kind, "request": given.request, "command": given.command,
                      **measured(words)}))  # fmt: skip


if __name__ == "__main__":
    main()
