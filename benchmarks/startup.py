"""Seconds from the command to the end of the first training step: `python benchmarks/startup.py [--json OUT]`.

Runs `expunge run` on MiniLM-L6 (as a classifier of the demo's diagnoses) in processes of their own that end behind the first
step, and says when torch, the checks, the model, the original's scores and the first step were done. Also `expunge --help`,
`import expunge`, and a run whose files are not there. The first of each is left out: it warms the disk.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from expunge.bench.timing import machine
from expunge.folders import whole_file

_MARKED = """
import os, sys, time
start, cpu = float(sys.argv.pop(1)), time.process_time
marks = {}
def mark(name):
    if name not in marks: marks[name] = [round(time.time() - start, 2), round(cpu(), 2)]
def after(owner, attribute, name):
    plain = getattr(owner, attribute)
    def wrapped(*args, **options):
        found = plain(*args, **options)
        mark(name)
        return found
    setattr(owner, attribute, wrapped)
import expunge.cli
mark("command line")
import torch, transformers
mark("torch and transformers")
import expunge.checks, expunge.execution, expunge.trainer
mark("all imports")
after(expunge.checks, "check", "checks, records read")
after(expunge.execution.Run, "_encode", "tokens")
after(expunge.execution.Run, "_own_model", "model")
after(expunge.execution.Run, "_score", "scores of the original")
plain = expunge.trainer.UnlearnTrainer.training_step
def step(*args, **options):
    found = plain(*args, **options)
    mark("first step")
    import json
    print(json.dumps(marks), flush=True)
    os._exit(0)
expunge.trainer.UnlearnTrainer.training_step = step
expunge.cli.main()
"""


def run_words(folder: Path, records: int) -> list[str]:
    """A run over the demo's records, with MiniLM and a new head in the place of a fine-tuned model."""
    from expunge.demo_data import diagnosis_phrases, encoder_folder
    from expunge.models import head_sizes, load_model, load_tokenizer

    train, held_out = diagnosis_phrases(records, 500)
    names = sorted({row["chapter"] for row in [*train, *held_out]})
    base = str(encoder_folder())
    model = load_model(base, "AutoModelForSequenceClassification", where="base", new_head=head_sizes(names))
    model.save_pretrained(folder / "model")
    load_tokenizer(base, where="base").save_pretrained(folder / "model")
    for name, rows in (("train", train), ("held", held_out)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text", "label"])
            writer.writerows([row["id"], row["text"], row["chapter"]] for row in rows)
    (folder / "ids.txt").write_text("\n".join(row["id"] for row in train[:32]), encoding="utf-8")
    (folder / "salt").write_bytes(b"a salt for measuring, no secret")
    return ["run", "--model", str(folder / "model"), "--data", str(folder / "train.csv"), "--id", "id", "--held-out",
            str(folder / "held.csv"), "--forget", str(folder / "ids.txt"), "--salt-file", str(folder / "salt"), "--set",
            "audit.retain_sample=500"]  # fmt: skip


def timed(words: list[str]) -> tuple[dict[str, list[float]], str]:
    """Wall and processor seconds of a process, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"whole": [round(wall, 2), round(cpu, 2)]}, done.stdout or done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    python = [sys.executable]
    found: dict[str, list[Any]] = {"import expunge": [], "--help": [], "files that are not there": [], "first step": []}
    with tempfile.TemporaryDirectory(prefix="expunge-startup-") as name:
        folder = Path(name)
        words = run_words(folder, given.records)
        for number in range(given.repeats + 1):
            gone = ["-m", "expunge", "run", "--model", "./no", "--data", "no.csv", "--out", str(folder / "no")]
            rows = {
                "import expunge": timed([*python, "-c", "import expunge"])[0],
                "--help": timed([*python, "-m", "expunge", "--help"])[0],
                "files that are not there": timed([*python, *gone])[0],
            }
            out = ["--out", str(folder / f"out-{number}")]
            said = timed([*python, "-c", _MARKED, str(time.time()), *words, *out])[1]
            rows["first step"] = json.loads(said.splitlines()[-1])
            for key, row in rows.items():
                if number:
                    found[key].append(row)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    result = {"wall and processor seconds": found, "n": given.repeats, "machine": machine(threads)}
    print(json.dumps(result, indent=1))
    if given.json:
        whole_file(given.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
