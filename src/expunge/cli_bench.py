"""`expunge bench`: run a matrix of methods beside retraining or a game of U-LiRA, and make their tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.errors import Problem, UsageError

__all__ = ["authors", "continual", "deep", "lira", "run", "table", "tofu"]


def run(
    config: Annotated[Path, typer.Argument(help="A benchmark, such as benchmarks/encoders.toml.")],
    data: Annotated[Path, typer.Option(help="Folder the data sets lie in.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one JSON a cell.")],
    base: Annotated[str, typer.Option(help="Base model: folder or hub id; left out: the demo's MiniLM-L6.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for models and scores; left out: OUT/work.")] = None,
    only: Annotated[str, typer.Option(help="Pattern of cells to run: data/request/method/seed.")] = "*",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a size: seeds=[0].")] = None,
) -> None:
    """Run every cell that is not done yet. Started several times at once, the workers share the cells."""
    from expunge.bench.config import BenchConfig
    from expunge.bench.matrix import run_matrix

    done = run_matrix(
        BenchConfig.load(config, set_ or ()), data, _base(base), out, work or out / "work", only=only, say=_say
    )
    print(f"{done} cells run; the results are in {out}")


def table(
    results: Annotated[Path, typer.Argument(help="A folder of results, as `expunge bench run` or `lira` fills it.")],
    out: Annotated[Path, typer.Option(help="Folder for table.md, table.json and table.html.")],
) -> None:
    """Make the table of what is done: Markdown, JSON and an HTML page with plots; of a game of U-LiRA, Markdown."""
    played = (
        json.loads((results / "game.json").read_text(encoding="utf-8")) if (results / "game.json").is_file() else None
    )
    if played is not None and "inside" not in played:
        way_out = "The command that made them draws their table: expunge bench tofu, continual, authors or deep."
        raise UsageError(Problem("RESULTS", f'"{results}" holds results of another benchmark', way_out))
    if played is not None:
        from expunge.bench.lira_table import write_lira_table

        print(write_lira_table(results, out / "lira.md"))
        return
    from expunge.bench.table import write_tables

    for file in write_tables(results, out):
        print(file)


def lira(
    config: Annotated[Path, typer.Argument(help="A game, such as benchmarks/lira.toml.")],
    data: Annotated[Path, typer.Option(help="Folder the data set lies in.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one JSON a row.")],
    base: Annotated[str, typer.Option(help="Base model: folder or hub id; left out: the demo's MiniLM-L6.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for shadows and margins; left out: OUT/work.")] = None,
    only: Annotated[str, typer.Option(help="Pattern of rows to play: untouched, a method's name, retrained.")] = "*",
    table_: Annotated[Path | None, typer.Option("--table", help="Markdown file; left out: OUT/lira.md.")] = None,
) -> None:
    """Could an attacker tell? U-LiRA over shadow models: goes on where it was; several workers share the models."""
    from expunge.bench.lira import run_lira
    from expunge.bench.lira_config import LiraConfig
    from expunge.bench.lira_table import write_lira_table

    made = run_lira(LiraConfig.load(config), data, _base(base), out, work or out / "work", only=only, say=_say)
    print(f"{made} models made; the results are in {out}")
    print(write_lira_table(out, table_ or out / "lira.md"))


def tofu(
    config: Annotated[Path, typer.Argument(help="A benchmark on TOFU, such as benchmarks/tofu.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of TOFU's files.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one JSON a model measured.")],
    base: Annotated[str, typer.Option(help="Base model: folder or hub id; left out: SmolLM2-135M-Instruct.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for models; left out: OUT/work.")] = None,
    only: Annotated[str, typer.Option(help="Pattern of rows: base, original-SEED, retrained-SEED, METHOD-SEED.")] = "*",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a size: seeds=[0].")] = None,
    table_: Annotated[Path | None, typer.Option("--table", help="Markdown file; left out: OUT/tofu.md.")] = None,
) -> None:
    """Causal language models on TOFU beside models retrained without the request: goes on where it was."""
    from expunge.bench.tofu import run_tofu
    from expunge.bench.tofu_config import TofuConfig
    from expunge.bench.tofu_markdown import write_tofu_table
    from expunge.smollm2 import smollm2_folder

    chosen = base or str(smollm2_folder())
    done = run_tofu(TofuConfig.load(config, set_ or ()), data, chosen, out, work or out / "work", only=only, say=_say)
    print(f"{done} rows made; the results are in {out}")
    if any((out / "rows").glob("retrained-*.json")):
        print(write_tofu_table(out, table_ or out / "tofu.md"))


def continual(
    config: Annotated[
        Path, typer.Argument(help="A benchmark of requests in a row, such as benchmarks/continual.toml.")
    ],
    data: Annotated[Path, typer.Option(help="Folder the data set lies in.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one JSON a request of a method.")],
    base: Annotated[str, typer.Option(help="Base model: folder or hub id; left out: the demo's MiniLM-L6.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for models; left out: OUT/work.")] = None,
    only: Annotated[str, typer.Option(help="Pattern of rows: original-SEED, METHOD-SEED-REQUEST.")] = "*",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a size: seeds=[0].")] = None,
    table_: Annotated[Path | None, typer.Option("--table", help="Markdown file; left out: OUT/continual.md.")] = None,
) -> None:
    """Requests that keep coming, one after the other on one model: goes on where it was."""
    from expunge.bench.continual import run_continual
    from expunge.bench.continual_config import ContinualConfig
    from expunge.bench.continual_table import write_continual_table

    settings = ContinualConfig.load(config, set_ or ())
    done = run_continual(settings, data, _base(base), out, work or out / "work", only=only, say=_say)
    print(f"{done} rows made; the results are in {out}")
    if any((out / "rows").glob("original-*.json")):
        print(write_continual_table(out, table_ or out / "continual.md"))


def authors(
    config: Annotated[Path, typer.Argument(help="A benchmark of authors in a row, such as benchmarks/authors.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of TOFU's files.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one JSON a request of a method.")],
    base: Annotated[str, typer.Option(help="Base model: folder or hub id; left out: SmolLM2-135M-Instruct.")] = "",
    encoder: Annotated[str, typer.Option(help="Encoder of O3's detectors; left out: the demo's MiniLM-L6.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for models; left out: OUT/work.")] = None,
    only: Annotated[str, typer.Option(help="Pattern of rows: original-SEED, METHOD-SEED-REQUEST.")] = "*",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a size: seeds=[0].")] = None,
    table_: Annotated[Path | None, typer.Option("--table", help="Markdown file; left out: OUT/authors.md.")] = None,
) -> None:
    """TOFU's authors forgotten in a row by one language model: goes on where it was."""
    from expunge.bench.authors import run_authors
    from expunge.bench.authors_config import AuthorsConfig
    from expunge.bench.authors_table import write_authors_table
    from expunge.smollm2 import smollm2_folder

    settings, chosen = AuthorsConfig.load(config, set_ or ()), base or str(smollm2_folder())
    done = run_authors(settings, data, chosen, _base(encoder), out, work or out / "work", only=only, say=_say)
    print(f"{done} rows made; the results are in {out}")
    if any((out / "rows").glob("original-*.json")):
        print(write_authors_table(out, table_ or out / "authors.md"))


def deep(
    config: Annotated[Path, typer.Argument(help="A benchmark on facts, such as benchmarks/deep.toml.")],
    data: Annotated[Path, typer.Option(help="Facts and rules with questions: edu_relat.json, or a JSON of both.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one JSON a method, scope and target.")],
    base: Annotated[str, typer.Option(help="Base model: folder or hub id; left out: SmolLM2-135M-Instruct.")] = "",
    work: Annotated[Path | None, typer.Option(help="Folder for the fine-tuned model; left out: OUT/work.")] = None,
    only: Annotated[
        str, typer.Option(help="Pattern of rows: original, METHOD-alone-TARGET, METHOD-closure-TARGET.")
    ] = "*",
    set_: Annotated[list[str] | None, typer.Option("--set", help='Change a size: targets=["283"].')] = None,
    table_: Annotated[Path | None, typer.Option("--table", help="Markdown file; left out: OUT/deep.md.")] = None,
) -> None:
    """Deep unlearning of facts on EDU-RELAT: recall against accuracy, targets alone and with their closure; resumable."""
    from expunge.bench.deep import run_deep
    from expunge.bench.deep_config import DeepConfig
    from expunge.bench.deep_table import write_deep_table
    from expunge.smollm2 import smollm2_folder

    chosen = base or str(smollm2_folder())
    done = run_deep(DeepConfig.load(config, set_ or ()), data, chosen, out, work or out / "work", only=only, say=_say)
    print(f"{done} rows made; the results are in {out}")
    if any((out / "rows").glob("*-*.json")):
        print(write_deep_table(out, table_ or out / "deep.md"))


def _base(given: str) -> str:
    from expunge.demo_data import encoder_folder

    return given or str(encoder_folder())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
