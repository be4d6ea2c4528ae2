"""What SISA costs in accuracy, disk and passes on the demo's records: python benchmarks/sisa.py OUT.json [RECORDS].

Plain fine-tuning of MiniLM-L6, then ensembles of full copies and of LoRA adapters on the same records, then one erasure of
one record from each slice. The seconds are those of one machine under whatever else it did; the passes are not.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from expunge.config import Recipe
from expunge.data.records import Records
from expunge.demo_data import diagnosis_phrases, encoder_folder
from expunge.fit import fit
from expunge.head import find_head
from expunge.models import load_model, load_tokenizer
from expunge.scoring import score
from expunge.sisa.build import train_sisa
from expunge.sisa.manifest import Ledger
from expunge.sisa.request import account, erase
from expunge.tasks.text_classification import TextClassification

RECIPE = Recipe(epochs=4.0, learning_rate=4e-4, batch_size=32, max_length=24, group_by_length=True, seed=0)
# A shard sees a fifth of the steps, and adapters need larger ones.
VARIANTS: dict[str, dict[str, Any]] = {
    "5 shards x 4 slices, full copies": {"recipe": RECIPE},
    "5 shards x 4 slices, full copies, batches of 8": {"recipe": replace(RECIPE, batch_size=8, learning_rate=2e-4)},
    "5 shards x 4 slices, LoRA, batches of 8": {
        "recipe": replace(RECIPE, batch_size=8, learning_rate=2e-3), "adapter": "lora",
    },
    "2 shards x 4 slices, full copies, batches of 8": {
        "recipe": replace(RECIPE, batch_size=8, learning_rate=2e-4), "shards": 2,
    },
}  # fmt: skip


def main(out: Path, count: int) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    train, held_out = diagnosis_phrases(count, 2000)
    names = tuple(sorted({row["chapter"] for row in [*train, *held_out]}))
    base = str(encoder_folder())
    task = TextClassification(load_tokenizer(base, where="base"), 24, names)

    def encoded(rows: list[dict[str, str]]) -> Any:
        ids, texts = (row["id"] for row in rows), ((row["text"],) for row in rows)
        return task.encode(Records(tuple(ids), tuple(texts), tuple(names.index(row["chapter"]) for row in rows)))

    def accuracy(model: Any) -> dict[str, float]:
        groups = {"train": encoded(train), "held_out": encoded(held_out)}
        head = find_head(model, task.collate(groups["train"], [0]))
        return {name: round(score(model, head, rows, task).accuracy, 4) for name, rows in groups.items()}

    start = time.perf_counter()
    model = fit(base, task, encoded(train), RECIPE, seed=0, label_names=names)
    found: dict[str, Any] = {
        "plain fine-tuning": {
            **accuracy(model), "passes": RECIPE.epochs * count, "seconds": round(time.perf_counter() - start, 1),
        }
    }  # fmt: skip
    print(found, flush=True)
    salt = b"the salt of a benchmark, no secret"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "salt").write_bytes(salt)
        for number, (name, options) in enumerate(VARIANTS.items()):
            place, start = Path(folder) / str(number), time.perf_counter()
            manifest = train_sisa(
                base, train, out=place, label="chapter", labels=names, id="id", salt_file=f"{folder}/salt", **options
            )
            seconds = round(time.perf_counter() - start, 1)
            ensemble = load_model(str(place), task.auto_class, where="model.path")
            ensemble.ledger = Ledger(salt)
            found[name] = {
                **accuracy(ensemble),
                "passes": sum(map(sum, manifest.passes)),
                "seconds": seconds,
                "megabytes": round(sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) / 1e6),
                "expected_share_of_one": round(float(manifest.plan.share_of_one(manifest.counts)), 4),
                "erasures": [],
            }
            print(name, found[name], flush=True)
            for slice_ in range(1, manifest.plan.slices + 1):
                gone = next(row for row in train if manifest.plan.place(row["id"])[1] == slice_)
                rest = [row for row in train if row is not gone]
                start = time.perf_counter()
                erased = erase(
                    ensemble, task=task, forget=encoded([gone]), forget_ids=[gone["id"]], retain=encoded(rest),
                    retain_ids=[row["id"] for row in rest], spend=lambda passes: None,
                )  # fmt: skip
                found[name]["erasures"].append(
                    {
                        "slice": slice_,
                        "share_of_passes": round(account(erased)["sisa"]["share"], 4),
                        "seconds": round(time.perf_counter() - start, 1),
                    }
                )
                print(found[name]["erasures"][-1], flush=True)
    out.write_text(json.dumps({"records": count, "runs": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
