"""The tables of the benchmark on TOFU as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.bench.tofu_table import ATTACKS, LEAST_UTILITY, LIKE, POWER, UTILITY_PARTS, build_tofu_table
from expunge.folders import whole_file

__all__ = ["tofu_markdown", "write_tofu_table"]


def write_tofu_table(results: Path, file: Path) -> Path:
    """Write the Markdown tables of a folder that `expunge bench tofu` filled.

    Raises:
        UsageError: There are no results.
    """
    text = tofu_markdown(build_tofu_table(results))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole_file(file, text)
    return file


def tofu_markdown(table: dict[str, Any]) -> str:
    """The tables as Markdown."""
    game, bars, n = table["game"], table["bars"], table["game"]["n"]
    columns = (
        "model", "seeds", "probability", "ROUGE-L", "truth ratio", "distance", "forget quality", "utility", "of retrained",
        "stands out", "kept step", "cost",
    )  # fmt: skip
    lines = [
        "# TOFU: causal language models beside models that never saw the records",
        "",
        "Made by `expunge bench tofu` from the values of every record; do not edit.",
        "",
        f"{n['train']} questions and answers are learnt, {n['forget']} of them are to be forgotten; retrained models learnt "
        f"the other {n['retain']}. Means over the seeds named, with 95 % intervals over records (bootstrap; DeLong's for "
        "AUCs). **Probability**, **ROUGE-L recall** and **truth ratio** (mean of min(R, 1/R)) are of the records to forget. "
        "**Distance**: of their truth ratios to a retrained model's (Kolmogorov-Smirnov; mean over seeds and retrained "
        "models). **Forget quality**: the p-value of that distance, one a seed (mean over retrained models; of a retrained "
        "model, over the others). **Utility**: harmonic mean of TOFU's nine scores, and as a share of the retrained models'. "
        "**Stands out**: seeds in which forget records can be told from never-seen ones better, or worse, than in every "
        f"retrained model: to an attack (interval of the AUC's difference off 0) or by the truth ratio (p below {POWER} beside "
        "each); remembered where they look more like members, over-forgotten where less. "
        "**Cost**: example-passes as a share of retraining's, the stop rule's checks included.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]  # fmt: skip
    lines += [_line(row) for row in table["rows"]]
    widest = bars["between"]
    lines += ["", "## Bars", ""]
    if bars["power"] is not None:
        ps = ", ".join(f"{p:.2g}" for p in bars["power"]["p"])
        met = "so the test has power" if bars["power"]["met"] else "so the test has no power here"
        lines.append(f"- The original's forget quality must lie below {POWER} in every seed: {ps}, {met}.")
    if widest is not None:
        reached = ", ".join(bars["reached"]) or "none"
        lines.append(
            f"- Forget quality above {LIKE} in every seed, distance no larger than the largest between two retrained models "
            f"({widest:.3f}), utility at least {LEAST_UTILITY:.0%} of theirs: {reached}."
        )
    lines += [
        "", "## Utility in parts", "",
        "Its nine scores, means over seeds, and the utility of each seed: a harmonic mean hangs on the least of them.", "",
        f"| model | {' | '.join(UTILITY_PARTS)} | utility of each seed |",
        f"|---|{'---|' * (len(UTILITY_PARTS) + 1)}",
    ]  # fmt: skip
    for row in table["rows"]:
        cells = [f"{row['utility_parts'][name]:.3f}" for name in UTILITY_PARTS]
        each = ", ".join(f"{value:.3f}" for value in row["utility_each"])
        lines.append(f"| {row['kind']} | {' | '.join(cells)} | {each} |")
    lines += [
        "", "## Attacks and memory", "",
        "AUC of forget records over never-seen ones (0.5: not told apart; what retrained models have is right). **PrivLeak** "
        "of Min-K, per cent: 0 as retrained, below remembered, above over-forgotten. **Extraction strength** and **exact "
        "memorisation** of the records to forget.", "",
        f"| model | {' | '.join(ATTACKS)} | PrivLeak | extraction strength | exact memorisation |",
        f"|---|{'---|' * (len(ATTACKS) + 3)}",
    ]  # fmt: skip
    for row in table["rows"]:
        cells = [_interval(row["attacks"].get(attack), 2) for attack in ATTACKS]
        cells += [
            _interval(row["attacks"].get("PrivLeak"), 0),
            _interval(row["extraction"], 2),
            _interval(row["memorised"], 2),
        ]
        lines.append(f"| {row['kind']} | {' | '.join(cells)} |")
    if table["failed"]:
        lines += ["", "Failed:", "", *(f"- {name}: {why}" for name, why in table["failed"].items())]
    lines += ["", f"Recipe: {_recipe(game['recipe'])}.", ""]
    return "\n".join(lines)


def _recipe(recipe: dict[str, Any]) -> str:
    named = ("epochs", "learning_rate", "batch_size", "warmup", "scheduler")
    return ", ".join(f"{name} {recipe[name]}" for name in named)


def _line(row: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, row["seeds"])) or "-"
    ps = "-" if row["p"] is None else ", ".join(f"{p:.2g}" for p in row["p"])
    cost = row.get("cost")
    flags = dict.fromkeys(flag for own in row["flags"] for flag in own)
    said = "; ".join(f"{flag}: {sum(flag in own for own in row['flags'])} of {len(row['flags'])}" for flag in flags)
    steps = [] if cost is None else zip(row["kept_step"], row["steps"], strict=True)
    kept = ", ".join(f"{'-' if step is None else step}/{last}" for step, last in steps) or "-"
    share = "-" if row["utility_share"] is None else f"{row['utility_share']:.1%}"
    return "| " + " | ".join([
        row["kind"], seeds, _interval(row["probability"], 2), _interval(row["rouge"], 2), _interval(row["truth"], 2),
        _interval(row["distance"], 2), ps, _interval(row["utility"], 3), share, said or "no", kept,
        "-" if cost is None else f"{cost['ratio']:.1%}",
    ]) + " |"  # fmt: skip


def _interval(found: dict[str, float] | None, digits: int) -> str:
    if found is None:
        return "-"
    value, low, high = (f"{found[end]:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
