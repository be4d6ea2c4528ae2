"""`expunge compare`: several runs in one table, and in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.errors import Problem, UsageError

__all__ = ["compare"]


def compare(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders that `expunge run` wrote, or their record.json: two at least.")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file to write.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put runs beside each other: a table here, a page with --out. Says what forbids to compare them; ranks nothing."""
    from expunge.compare_runs import compare_runs, print_comparison
    from expunge.folders import whole_file
    from expunge.record import RunRecord

    problems, records = [], {}
    if len(folders) < 2:
        problems.append(
            Problem("compare", "one run alone is named", "Name two folders or more: expunge compare a/ b/.")
        )
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        problems.append(
            Problem("--out", f'"{out}" cannot be written', "Name a file in a folder that exists: --out compare.html.")
        )
    for folder, name in zip(folders, _names(folders), strict=True):
        try:
            records[name] = RunRecord.read(folder)
        except UsageError as error:
            problems += [Problem(str(folder), one.what, one.way_out) for one in error.problems]
    if problems:
        raise UsageError(problems)
    found = compare_runs(records)
    if out is not None:
        from expunge.compare_page import comparison_page

        whole_file(out, comparison_page(found))
    if json:
        import json as json_module

        print(json_module.dumps(found, indent=1, ensure_ascii=False))
        return
    print_comparison(found)
    if out is not None:
        print(f"Page: {out}")


def _names(folders: list[Path]) -> list[str]:
    """The last part of each path, where these differ; else the paths, numbered where one is named twice."""
    short = [(folder.parent if folder.name == "record.json" else folder).resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [f"{name} ({place + 1})" if names.count(name) > 1 else name for place, name in enumerate(names)]
