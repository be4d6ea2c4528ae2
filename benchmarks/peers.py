"""Ours beside peers' trainers and attacks: `python benchmarks/peers.py --open-unlearning PATH --erasure PATH [ROW ...]`.

PATH is a checkout of locuslab/open-unlearning and of aiim-research/ERASURE: their code runs from there, in this process, on the
same model, records, batch, precision, threads and optimizer as ours, in turns. Rows of OpenUnlearning are one optimisation step
of each trainer's own loop, what stays the same over steps (our cache of the original's outputs, their reference model) made
before; rows of ERASURE are whole runs of as many example-passes. A ratio of 2 says that ours takes half the time.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peer_code
import torch
import workloads

from expunge.bench.timing import Spent, machine, markdown, side_by_side
from expunge.folders import whole_file
from expunge.head import head_of
from expunge.methods.gradient_difference import GradientDifference
from expunge.methods.npo import NPO
from expunge.methods.rmu import RMU
from expunge.methods.scrub import Scrub
from expunge.methods.undial import UNDIAL
from expunge.scoring import score
from expunge.stats import auc
from expunge.stress import Material
from expunge.token_attacks import min_k, min_k_plus_plus, zlib
from expunge.token_attacks import reference as against_reference
from expunge.token_stress import gradients

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")

WARM = 1
BATCH, PROMPT, LENGTH = 8, 32, 128
# row -> (their trainer, its options, our method, how many times faster ours must be)
TRAINERS: dict[str, tuple[str, dict[str, Any], Any, float]] = {
    "open-unlearning/npo-nll": ("NPO", {"retain_loss_type": "NLL", "beta": 0.1}, NPO(), 1.3),
    "open-unlearning/npo-kl": ("NPO", {"retain_loss_type": "KL", "beta": 0.1}, NPO(retain="kl"), 1.8),
    "open-unlearning/grad-diff-kl": (
        "GradDiff", {"retain_loss_type": "KL"}, GradientDifference(retain="kl", retain_ratio=1), 1.8,
    ),
    "open-unlearning/rmu": ("RMU", {"retain_loss_type": "EMBED_DIFF"}, RMU(), 2.0),
    "open-unlearning/undial": ("UNDIAL", {"retain_loss_type": "NLL", "beta": 10.0}, UNDIAL(), 1.5),
}  # fmt: skip
ATTACKS: dict[str, tuple[tuple[str, ...], bool]] = {
    "open-unlearning/mia, four": (("loss", "zlib", "min_k", "min_k++"), False),
    "open-unlearning/mia, five": (("loss", "zlib", "min_k", "min_k++", "reference"), False),
    "open-unlearning/mia, six": (("loss", "zlib", "min_k", "min_k++", "reference", "gradnorm"), True),
}
# row -> (their unlearner, the width it pads to, our method)
UNLEARNERS: dict[str, tuple[str, int, Any]] = {
    "erasure/gradient-difference": ("AdvancedNegGrad", 128, GradientDifference(retain_ratio=1)),
    "erasure/gradient-difference, padded alike": ("AdvancedNegGrad", 32, GradientDifference(retain_ratio=1)),
    "erasure/scrub": ("Scrub", 128, Scrub(retain_ratio=1, max_passes=9)),
    "erasure/scrub, padded alike": ("Scrub", 32, Scrub(retain_ratio=1, max_passes=9)),
}
ROWS = (*TRAINERS, *ATTACKS, *UNLEARNERS)


def words(tokenizer: Any, mark: str) -> list[str]:
    """Words that are one token each behind a space."""
    known = [t.removeprefix(mark) for t in tokenizer.get_vocab() if t.startswith(mark) and "#" not in t]
    return sorted(w for w in known if w.isascii() and w.isalpha() and w.islower() and len(w) > 3)


def questions(tokenizer: Any, count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs that are `LENGTH` tokens with their template, `PROMPT` of them before the answer."""
    rng = np.random.default_rng(seed)
    known = words(tokenizer, "Ġ")

    def said(tokens: int) -> str:
        return " ".join(rng.choice(known, tokens))

    before = len(tokenizer("Question:\nAnswer:")["input_ids"])
    return [(said(PROMPT - before), said(LENGTH - PROMPT - 1)) for _ in range(count)]


def trainer_row(name: str, repeats: int) -> dict[str, Any]:
    """Steps of both trainers in turn."""
    kind, options, method, least = TRAINERS[name]
    work = workloads.smollm2(BATCH, LENGTH)
    task = work.task.__class__(
        work.task.tokenizer, LENGTH, work.task.label_names, "Question: {prompt}\nAnswer: {answer}"
    )
    pairs = questions(task.tokenizer, 6 * BATCH, 0)
    forget, retain = pairs[: 2 * BATCH], pairs[2 * BATCH :]
    other = copy.deepcopy(work.model)
    with peer_code.temporary() as folder:
        sets = [
            peer_code.qa_dataset(p, task.tokenizer, Path(folder), n)
            for p, n in ((forget, "forget"), (retain, "retain"))
        ]
        encoded = {1: task.encode_texts(forget), 2: task.encode_texts(retain)}
        tokens = {len(row["input_ids"]) for row in sets[0]} | {len(row) for row in encoded[1].input_ids}
        assert tokens == {LENGTH}, f"records are of {tokens} tokens, not {LENGTH}"

        def start(wait: Any) -> None:
            trainer = peer_code.their_trainer(
                kind, other, task.tokenizer, *sets, batch=BATCH, steps=repeats + WARM, options=options, folder=folder
            )
            trainer.add_callback(wait)
            trainer.train()

        stepped, theirs = peer_code.Stepped(start), []
        ours, before, _ = workloads.timed_steps(
            workloads.Workload(work.model, task, BATCH, lambda count, seed: encoded.get(seed, encoded[2])), method,
            steps=repeats + WARM, retain=len(retain), between=lambda trainer, number: theirs.append(stepped.step()),
        )  # fmt: skip
        stepped.end()
    found = side_by_side(ours[WARM:], theirs[WARM:], swapped=True)
    return {"name": name, **found, "least": least, "before_first_step": round(before.wall, 2)}


def our_attacks(work: Any, reference: Any, forget: Any, holdout: Any, names: tuple[str, ...]) -> dict[str, float]:
    """AUC of the same attacks from one pass over the records (and one of the reference model)."""
    groups = {"forget": forget, "evaluation": holdout}
    head = head_of(work.model, work.task, forget)
    tables = {g: score(work.model, head, e, work.task, batch_size=BATCH, keep_hidden=False) for g, e in groups.items()}
    read: dict[str, Callable[[str], Any]] = {
        "loss": lambda g: -tables[g].record_losses,
        "zlib": lambda g: zlib(-tables[g].losses, tables[g].offsets, tables[g].compressed),  # pyright: ignore
        "min_k": lambda g: min_k(-tables[g].losses, tables[g].offsets, 0.2),
        "min_k++": lambda g: min_k_plus_plus(
            -tables[g].losses, tables[g].spread[:, 0], tables[g].spread[:, 1], tables[g].offsets, 0.2  # pyright: ignore
        ),
    }  # fmt: skip
    if "reference" in names:
        other = head_of(reference, work.task, forget)
        base = {
            g: score(reference, other, e, work.task, batch_size=BATCH, keep_hidden=False) for g, e in groups.items()
        }
        read["reference"] = lambda g: against_reference(-tables[g].losses, tables[g].offsets, -base[g].record_losses)
    if "gradnorm" in names:
        material = Material(
            task=work.task, forget=forget, calibration=holdout, evaluation=holdout, rewordings={}, learning_rate=1e-5,
            batch_size=BATCH, seed=0,
        )  # fmt: skip
        norms = gradients(work.model, material)[0]
        read["gradnorm"] = lambda g: -norms[g]
    return {name: float(auc(read[name]("forget"), read[name]("evaluation"))) for name in names}


def attack_row(name: str, repeats: int, count: int = 16) -> dict[str, Any]:
    """All attacks of both on as many forget and as many other records, in turn."""
    names, _ = ATTACKS[name]
    work = workloads.smollm2(BATCH, LENGTH)
    task = work.task.__class__(
        work.task.tokenizer, LENGTH, work.task.label_names, "Question: {prompt}\nAnswer: {answer}"
    )
    work = workloads.Workload(work.model.eval(), task, BATCH, work.records)
    pairs = questions(task.tokenizer, 2 * count, 1)
    reference = copy.deepcopy(work.model)
    torch.manual_seed(0)
    with torch.no_grad():  # another model than the one attacked
        for parameter in reference.parameters():
            parameter.mul_(1 + 0.01 * torch.randn_like(parameter))
    ours, theirs, found = [], [], {}
    with peer_code.temporary() as folder:
        parts = [("forget", pairs[:count]), ("holdout", pairs[count:])]
        sets = [peer_code.qa_dataset(p, task.tokenizer, Path(folder), n) for n, p in parts]
        encoded = [task.encode_texts(p) for _, p in parts]
        for _ in range(repeats):
            begin = Spent.now()
            found["ours"] = our_attacks(work, reference, *encoded, names)
            middle = Spent.now()
            found["theirs"] = peer_code.their_attacks(
                work.model, reference, task.tokenizer, *sets, batch=BATCH, names=names
            )
            ours.append(middle.since(begin))
            theirs.append(Spent.now().since(middle))
    aucs = {who: {attack: round(value, 4) for attack, value in values.items()} for who, values in found.items()}
    return {"name": name, **side_by_side(ours, theirs, swapped=True), "least": 5.0, "auc": aucs}


def unlearner_row(name: str, repeats: int, epochs: int = 2, batch: int = 32) -> dict[str, Any]:
    """Whole runs of as many example-passes, in turn: 4 batches of forget and of retained records an epoch."""
    kind, width, method = UNLEARNERS[name]
    count = 4 * batch
    work = workloads.minilm(batch)
    known = words(work.task.tokenizer, "")
    rng = np.random.default_rng(0)
    texts = {
        group: [(" ".join(rng.choice(known, 30)), int(rng.integers(workloads.CLASSES))) for _ in range(count)]
        for group in ("forget", "retain")
    }
    encoded = {
        seed: work.task.encode_texts([(t,) for t, _ in texts[g]], [label for _, label in texts[g]])
        for seed, g in ((1, "forget"), (2, "retain"))
    }
    assert {len(row) for row in encoded[1].input_ids} == {32}
    other = copy.deepcopy(work.model)
    own = workloads.Workload(work.model, work.task, batch, lambda c, s: encoded.get(s, encoded[2]))
    # Gradient difference reads both groups in a step, SCRUB one of them.
    steps = epochs * 4 * (2 if kind == "Scrub" else 1)
    ours, theirs = [], []
    for _ in range(repeats + WARM):
        took = workloads.timed_steps(own, method, steps=steps, retain=count)[0]
        ours.append(Spent(sum(t.wall for t in took), sum(t.cpu for t in took)))
        run = peer_code.their_unlearner(
            kind, other, work.task.tokenizer, texts, batch=batch, width=width, epochs=epochs
        )
        begin = Spent.now()
        run()
        theirs.append(Spent.now().since(begin))
    found = side_by_side(ours[WARM:], theirs[WARM:], swapped=True)
    return {"name": name, **found, "least": 2.0, "passes": epochs * 2 * count, "their_width": width}


def memory_row(checkout: Path, row: str) -> dict[str, Any]:
    """Peak memory above the loaded model of both, each in a process of its own."""
    peaks = {}
    for who in ("ours", "theirs"):
        words_ = [sys.executable, __file__, "--open-unlearning", str(checkout), "--peak", who, row]
        done = subprocess.run(words_, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{who} failed:\n{done.stderr}")
        peaks[who] = int(done.stdout.split()[-1])
    mib = {who: round(peak / 2**20) for who, peak in peaks.items()}
    return {"name": f"{row}, peak memory", "mib": mib, "ratio": round(peaks["ours"] / peaks["theirs"], 3), "most": 0.6}


def peak(who: str, row: str) -> int:
    """Bytes above the loaded model at most in two steps of one side (Linux)."""
    kind, options, method, _ = TRAINERS[row]
    work = workloads.smollm2(BATCH, LENGTH)
    task = work.task.__class__(
        work.task.tokenizer, LENGTH, work.task.label_names, "Question: {prompt}\nAnswer: {answer}"
    )
    pairs = questions(task.tokenizer, 4 * BATCH, 0)
    parts = pairs[: 2 * BATCH], pairs[2 * BATCH :]
    with peer_code.temporary() as folder:
        sets = [peer_code.qa_dataset(p, task.tokenizer, Path(folder), str(i)) for i, p in enumerate(parts)]
        encoded = [task.encode_texts(p) for p in parts]
        loaded = workloads.memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest mark is what is there now
        if who == "theirs":
            peer_code.their_trainer(
                kind, work.model, task.tokenizer, *sets, batch=BATCH, steps=2, options=options, folder=folder
            ).train()
        else:
            own = workloads.Workload(work.model, task, BATCH, lambda c, s: encoded[0] if s == 1 else encoded[1])
            workloads.timed_steps(own, method, steps=2, retain=len(parts[1]))
        return workloads.memory("VmHWM") - loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"any of {', '.join(ROWS)}, or the beginning of some; left out: all")
    parser.add_argument("--open-unlearning", type=Path, default=None, help="checkout of locuslab/open-unlearning")
    parser.add_argument("--erasure", type=Path, default=None, help="checkout of aiim-research/ERASURE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--memory", action="store_true", help="peak memory of the trainers' rows in place of their time"
    )
    parser.add_argument("--json", type=Path, default=None, help="file that rows are put into, beside those in it")
    parser.add_argument("--peak", choices=("ours", "theirs"), default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    for checkout, ready in ((given.open_unlearning, peer_code.open_unlearning), (given.erasure, peer_code.erasure)):
        if checkout is not None:
            if not (checkout / "LICENSE").is_file():
                parser.error(f"{checkout} is no checkout")
            ready(checkout.absolute())
    there = {"open-unlearning": given.open_unlearning, "erasure": given.erasure}
    asked = [
        name for name in ROWS
        if there[name.partition("/")[0]] is not None and (not given.rows or any(name.startswith(r) for r in given.rows))
    ]  # fmt: skip
    if given.peak:
        print(peak(given.peak, given.rows[0]))
        return
    if not asked:
        parser.error("name a checkout with --open-unlearning or --erasure, and rows that are its")
    made = []
    for name in asked:
        if given.memory and name not in TRAINERS:
            continue
        if given.memory:
            row = memory_row(given.open_unlearning, name)
        elif name in TRAINERS:
            row = trainer_row(name, given.repeats)
        else:
            row = (attack_row if name in ATTACKS else unlearner_row)(name, given.repeats)
        made.append({**row, "machine": machine(torch.get_num_threads())})
        print(json.dumps(made[-1]), flush=True)
        if given.json:
            kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else []
            whole_file(
                given.json, json.dumps([*(r for r in kept if r["name"] != row["name"]), made[-1]], indent=1) + "\n"
            )
    if not given.memory:
        print("\n" + markdown(made, ("ours", "theirs")))


if __name__ == "__main__":
    main()
