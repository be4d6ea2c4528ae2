"""`expunge plan` and `expunge records`, and what the command line says of a request before a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge import cli_history
from expunge.errors import Problem, UsageError

__all__ = ["records", "show_plan", "warn"]

_SHOWN = 30


def warn(prepared: Any) -> None:
    """Say on stderr what the user should know before the run."""
    from expunge.verdict import LEAST_RECORDS

    request = prepared.request
    cli_history.warn(prepared)
    _duplicates(prepared)
    if gone := sorted(prepared.train.classes(request.forget) - prepared.train.classes(request.retain)):
        names = ", ".join(prepared.task.label_names[label] for label in gone)
        _say(f"No record of these classes stays: {names}.")
        if prepared.config.as_dict()["method"]["name"] == "deepcut":
            _say("DeepCUT needs some to push the others away from: use --method gradient-difference.")
    if (count := len(request.forget)) < LEAST_RECORDS:
        _say(
            f"A verdict takes {LEAST_RECORDS} records to forget, and here {'is' if count == 1 else 'are'} {count}: it will be "
            "no power; `expunge records` shows each by itself."
        )
    if request.missing:
        shown = ", ".join(request.missing[:10]) + (" ..." if len(request.missing) > 10 else "")
        _say(f"{len(request.missing)} requested ids are not in the data (allowed): {shown}")
    empty = sum(not "".join(text).strip() for text in prepared.train.texts)
    if empty:
        _say(f"{empty} training records have an empty text.")
    if prepared.near_held_out:
        from expunge.summary import near_held_out

        _say(near_held_out(prepared.near_held_out))
    if prepared.dropped:
        _say(
            f"{prepared.dropped} held-out records that are also in training, or nearly repeat one to forget, are left out."
        )
    if prepared.unused:
        from expunge.summary import not_used

        _say(not_used(prepared.unused, prepared.config.data.held_out_sample))
    if prepared.halved:
        _say("Held-out was split by hash into a calibration and an evaluation half.")


def _duplicates(prepared: Any) -> None:
    request, left = prepared.request, prepared.left()
    identical = sum(map(len, request.duplicates.values()))
    if identical:
        _say(f"{identical} rows outside the request say the same as a requested one:")
        for record_id, others in list(request.duplicates.items())[:10]:
            names = [prepared.shown(other) for other in others[:5]]
            _say(f"  {prepared.shown(record_id)} = {', '.join(names)}{' ...' if len(others) > 5 else ''}")
        if left["identical"]:
            _say("They stay, so their content is not erased; --with-duplicates forgets them too.")
        else:
            _say("They are forgotten too.")
    for kind, what in (("near", "nearly the same as"), ("neighbour", "in the base model's space close to")):
        matches = sorted((m for m in request.near if m.kind == kind), key=lambda match: -match.similarity)
        if not matches:
            continue
        _say(f"{len({m.other for m in matches})} rows outside the request are {what} a requested one:")
        for match in matches[:10]:
            _say(f"  {prepared.shown(match.requested)} ~ {prepared.shown(match.other)} ({match.similarity:.2f})")
        if len(matches) > 10:
            _say(f"  ... and {len(matches) - 10} more pairs")
        if left[kind]:
            _say("They stay, so the erasure is incomplete; --with-near-duplicates forgets them too.")
        else:
            _say("They are forgotten too.")
    if (identical or request.near) and not prepared.config.privacy.show_ids:
        _say("(Ids are pseudonyms; --show-ids shows them as they are.)")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def show_plan(plan: Any) -> None:
    """Print a plan as a table of records and sentences."""
    from rich.table import Table

    from expunge.summary import stdout

    console = stdout()
    rank = {"yes": 0, "undecided": 1, "no": 2}
    rows = sorted(plan.records, key=lambda row: (rank[row["memorised"]], -(row["percentile"] or 0)))
    grid = Table(title="Records to forget, under the original", title_justify="left")
    for name in ("record", "memorised", "percentile", "margin", "right", "duplicates"):
        grid.add_column(name, justify="right" if name in ("percentile", "margin", "duplicates") else "left")
    for row in rows[:_SHOWN]:
        percentile = "" if row["percentile"] is None else f"{row['percentile']:.1f}"
        right = "yes" if row["correct"] else "no"
        found = str(len(row["alike"]) or "")
        grid.add_row(row["id"], row["memorised"], percentile, f"{row['margin']:.2f}", right, found)
    console.print(grid)
    if len(rows) > _SHOWN:
        console.print(f"... and {len(rows) - _SHOWN} more; --json has them all.")
    for line in _sentences(plan):
        console.print(line)
    console.print("What the run will not be able to show:")
    for line in plan.cannot_show:
        console.print(f"  - {line}")


def _sentences(plan: Any) -> list[str]:
    data, known, cost = plan.data, plan.memorised, plan.cost
    lines = [
        f"Is erasure needed? {plan.needed}",
        f"Of {data['forget']} records the original had memorised {known['yes']} ({known['by_chance']:g} would be expected by "
        f"chance); {known['no']} it treats as half of the records never seen; {known['undecided']} are undecided.",
        f"Membership AUC of the original: {plan.membership.value:.3f} [{plan.membership.low:.3f}, {plan.membership.high:.3f}] "
        "(0.5: forget records look like those never seen).",
    ]
    found = plan.duplicates
    if sum(found[kind] for kind in ("identical", "near", "neighbour")):
        lines.append(
            f"Duplicates: {found['identical']} identical, {found['near']} near, {found['neighbour']} neighbours; "
            f"{sum(found['left'].values())} of these rows stay."
        )
    if cost.passes is None or cost.seconds is None:
        lines.append(f"Cost: {cost.basis}.")
        return lines
    steps = "" if cost.steps is None else f" in {cost.steps} steps at most (the stop rule may end earlier)"
    line = f"Cost: about {cost.passes:.0f} example-passes{steps}, {cost.checks:.0f} in checks"
    if cost.retraining:
        line += f"; {(cost.passes + cost.checks) / cost.retraining:.1%} of retraining's {cost.retraining:.0f}"
    lines.append(line + ".")
    line = f"Time: about {_duration(cost.seconds)}"
    if cost.retraining_seconds:
        line += f", {_duration(cost.retraining_seconds)} of it for retrained models"
    line += f" (an estimate, from {cost.basis}; audits apart)."
    memory = "" if cost.memory is None else f" Memory: about {cost.memory / 2**30:.1f} GiB at the peak."
    lines.append(line + memory)
    return lines


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def records(
    folder: Annotated[Path, typer.Argument(help="A folder that `expunge run` wrote, or its record.json.")],
    csv: Annotated[Path | None, typer.Option(help="CSV file to write; left out: printed.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The table of erased records, to hand on: each with its duplicates, before and after, and what attacks say of it."""
    from expunge.folders import whole_file
    from expunge.record import RunRecord
    from expunge.record_table import as_csv, record_table

    rows = record_table(RunRecord.read(folder))
    if csv is not None:
        if csv.is_dir() or not csv.absolute().parent.is_dir():
            way_out = "Name a file in a folder that exists: --csv records.csv."
            raise UsageError(Problem("--csv", f'"{csv}" cannot be written', way_out))
        whole_file(csv, as_csv(rows))
        print(csv)
    elif json:
        import json as json_module

        print(json_module.dumps(rows, indent=1))
    else:
        print(as_csv(rows), end="")
