"""What a small request costs beside retraining, by the clock: `python benchmarks/whole_runs.py banking77 --data DATA`.

A whole data set, MiniLM-L6 fine-tuned on all of it, models retrained without the request, then the real command, `expunge run`,
once a seed of unlearning; each retraining is timed in this process, the command by its own record, on the same threads.
"Unlearning" is everything between the original's scores and the last step, targets included; "with audit" adds the scores of
original and unlearned model and the audits' arithmetic; start-up, reading and loading are apart. What was forgotten is then
set beside the retrained models by `expunge audit`.

Models and what was timed are kept in --work, so that a run goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.bench.config import DataSet
from expunge.bench.timing import machine
from expunge.config import Recipe
from expunge.data import sources
from expunge.demo_data import encoder_folder
from expunge.fit import fit
from expunge.folders import whole_file, whole_folder
from expunge.models import load_tokenizer

SETS = {
    "banking77": DataSet(train=("banking77/train.csv",), test=("banking77/test.csv",), label="category"),
    "bc5cdr": DataSet(
        task="token-classification", format="conll", train=("bc5cdr/train.tsv",), dev=("bc5cdr/devel.tsv",),
        test=("bc5cdr/test.tsv",),
    ),
}  # fmt: skip
RECIPE = Recipe(epochs=4, learning_rate=2e-4, batch_size=32, max_length=128, warmup=0.1, group_by_length=True)
"""That of `benchmarks/calibrated.toml`."""
METHODS = {
    "deepcut-calibrated": [
        "training.learning_rate=1.5e-4", "training.scheduler=linear", "training.epochs=3.0", "training.min_steps=8",
    ],
    "deepcut-kernel": [],
}  # fmt: skip
"""Method -> its settings in `benchmarks/calibrated.toml`, where calibration records chose them."""
FIGURES = (
    ("utility", "forget"), ("utility", "retain"), ("utility", "evaluation"), ("membership", "forget vs evaluation"),
)  # fmt: skip
BARS = (0.06, 0.12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SETS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("bench-output/work-whole-runs"))
    parser.add_argument("--share", type=float, default=0.01, help="share of the training records to erase")
    parser.add_argument("--retrained", type=int, default=3, help="models retrained without them")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="further settings")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    work = given.work / f"{given.name}-{given.share:g}"
    work.mkdir(parents=True, exist_ok=True)
    files, took = prepared(given, work)
    rows = []
    for method in given.methods:
        for seed in range(given.seeds):
            rows.append(row(given, work, files, method, seed, took))
            print(json.dumps(rows[-1]), flush=True)
            if given.json:
                stored = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else []
                same = ("data", "share", "method", "seed", "settings")
                stored = [old for old in stored if any(old[key] != rows[-1][key] for key in same)]
                whole_file(given.json, json.dumps([*stored, rows[-1]], indent=1) + "\n")
    print(table(rows))


def prepared(given: argparse.Namespace, work: Path) -> tuple[dict[str, Any], list[float]]:
    """The command's words for data and models, and the seconds of each retraining; models are trained at first use."""
    data = SETS[given.name]
    parts = {"train": data.train, "held": data.test, "calibration": data.dev}
    read = {part: columns(given.data / files[0], data, part) for part, files in parts.items() if files}
    rng = np.random.default_rng(0)
    ids = read["train"]["id"]
    asked = set(rng.choice(len(ids), round(given.share * len(ids)), replace=False).tolist())
    for part, table in read.items():
        lines = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
        whole_file(work / f"{part}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    whole_file(work / "ids.txt", "".join(f"{ids[i]}\n" for i in sorted(asked)))
    if not (work / "salt").exists():
        (work / "salt").write_bytes(b"a salt for measuring, no secret")
    names = sorted({label for table in read.values() for row in table["label"] for label in listed(row)},
                   key=lambda name: (name != "O", name))  # fmt: skip
    trained(work, read["train"], names, data, (), 0)
    took = [trained(work, read["train"], names, data, asked, 100 + i)[1] for i in range(given.retrained)]
    words = ["--data", work / "train.jsonl", "--held-out", work / "held.jsonl", "--id", "id", "--label", "label", "--text",
             "words" if data.task == "token-classification" else "text", "--drop-overlap", "--model", work / "model-0",
             "--forget", work / "ids.txt", "--salt-file", work / "salt", "--base", encoder_folder()]  # fmt: skip
    if data.dev:
        words += ["--calibration", work / "calibration.jsonl"]
    return {"words": [*map(str, words)], "forget": len(asked), "retain": len(ids) - len(asked)}, took


def listed(label: Any) -> list[str]:
    return [label] if isinstance(label, str) else list(label)


def columns(file: Path, data: DataSet, part: str) -> dict[str, list[Any]]:
    """Columns id, text or words, and label of one of the files."""
    found = sources.read(file, where="data", file_format="conll" if data.format == "conll" else None)
    rows, labels = (
        (found["tokens"], found["ner_tags"]) if data.format == "conll" else (found[data.text], found[data.label])
    )
    ids = [f"{part}-{line:05d}" for line in range(1, len(rows) + 1)]
    return {"id": ids, "words" if data.format == "conll" else "text": list(rows), "label": list(labels)}


def trained(
    work: Path, table: dict[str, list[Any]], names: list[str], data: DataSet, without: Any, seed: int
) -> tuple[Path, float]:
    """Folder of the model trained on all records but some, and the seconds that took."""
    from expunge import registry
    from expunge.data.records import Records

    folder, note = work / f"model-{seed}", work / f"model-{seed}.json"
    if not note.exists():
        base = str(encoder_folder())
        tokenizer = load_tokenizer(base, where="base")
        task = registry.find("tasks", data.task)(tokenizer, RECIPE.max_length, tuple(names))
        number = {name: i for i, name in enumerate(names)}
        texts = [tuple(text) if isinstance(text, list) else (text,) for text in table.get("text", table.get("words"))]
        labels = tuple(
            number[row] if isinstance(row, str) else tuple(number[tag] for tag in row) for row in table["label"]
        )
        records = Records(tuple(table["id"]), tuple(texts), labels)
        kept = [i for i in range(len(records)) if i not in without]
        encoded = task.encode(records.take(kept))
        start = time.perf_counter()
        model = fit(base, task, encoded, replace(RECIPE, seed=seed), seed=seed, label_names=names)
        spent = time.perf_counter() - start
        if not folder.exists():
            with whole_folder(folder) as beside:
                model.save_pretrained(beside)
                tokenizer.save_pretrained(beside)
        whole_file(note, json.dumps({"seconds": spent, "records": len(kept), "recipe": asdict(RECIPE)}))
        print(f"{folder.name}: {len(kept)} records in {spent:.0f} s", file=sys.stderr, flush=True)
    return folder, json.loads(note.read_text(encoding="utf-8"))["seconds"]


def row(
    given: argparse.Namespace, work: Path, files: dict[str, Any], method: str, seed: int, took: list[float]
) -> dict[str, Any]:
    """One run of the real command, and its outcome beside the retrained models."""
    out = work / f"{method}-{seed}{''.join('-' + value.replace('=', '-') for value in given.set)}"
    settings = METHODS[method] + given.set
    if not (out / "record.json").exists():
        words = ["run", *files["words"], "--method", method, "--seed", str(seed), "--out", str(out)]
        told([*words, *(word for value in settings for word in ("--set", value))], out.with_name(f"{out.name}.log"))
    again = out.with_name(f"{out.name}-beside-{given.retrained}")
    if not (again / "record.json").exists():
        models = [word for i in range(given.retrained) for word in ("--retrained", str(work / f"model-{100 + i}"))]
        told(["audit", str(out), *models, "--out", str(again)], again.with_name(f"{again.name}.log"))
    own, beside = (json.loads((place / "record.json").read_text(encoding="utf-8")) for place in (out, again))
    spent = {name: seconds for name, seconds in own["timings"].items() if name != "started_unix"}
    retraining = float(np.median(took))
    said = out.with_name(f"{out.name}.log").read_text(
        encoding="utf-8"
    )  # a record is made before its audits' time is known
    spent["audit"] = float(re.search(r"auditing: done in ([\d.]+) s", said)[1])
    audited = spent["unlearn"] + spent["score"] + spent["audit"]
    return {
        "data": given.name, "share": given.share, "method": method, "seed": seed, "settings": settings,
        "forget": files["forget"], "retain": files["retain"], "epochs": RECIPE.epochs, "steps": own["training"]["steps"],
        "seconds": spent, "retraining": [round(value, 1) for value in took],
        "ratio": round(spent["unlearn"] / retraining, 4), "with_audit": round(audited / retraining, 4),
        "passes": own["cost"], "figures": figures(beside), "verdict": beside["verdict"]["outcome"],
        "machine": machine(torch.get_num_threads()),
    }  # fmt: skip


def told(words: list[str], log: Path) -> None:
    """Run the command, and keep what it said of its stages."""
    done = subprocess.run([sys.executable, "-m", "expunge", *words], capture_output=True, text=True, check=False)
    log.write_text(done.stderr, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"expunge {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


def figures(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Each figure of `FIGURES`: of the original, the unlearned and the retrained models, the gap and the noise floor."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in record["measurements"]:
        if (one["audit"], one["group"]) in FIGURES and one["name"] not in ("accuracy", "max(AUC, 1 - AUC)"):
            at = found.setdefault(
                (one["name"], one["group"]), {"name": one["name"], "group": one["group"], "n": one["n"]}
            )
            at[one["model"]] = round(one["value"], 4)
            if one["model"] == "unlearned":
                at |= {key: one[key] for key in ("gap", "noise_floor")}
    return list(found.values())


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| data | method | seed | unlearning, s | retraining, s | share | with audit |", "|---" * 7 + "|"]
    for one in rows:
        cells = [one["data"], one["method"], one["seed"], f"{one['seconds']['unlearn']:.1f}"]
        cells += [f"{np.median(one['retraining']):.0f}", f"{one['ratio']:.1%}", f"{one['with_audit']:.1%}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + f"\n\nBars: {BARS[0]:.0%} and {BARS[1]:.0%}.\n"


if __name__ == "__main__":
    main()
