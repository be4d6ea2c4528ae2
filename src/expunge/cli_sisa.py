"""`expunge train-sisa`: train an ensemble from which records can be erased exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train_sisa"]


def train_sisa(
    base: Annotated[str, typer.Option(help="Model to fine-tune from: folder or hub id.")],
    data: Annotated[str, typer.Option(help="Training data: file, saved dataset or hub id.")],
    recipe: Annotated[Path, typer.Option(help="TOML file: epochs, learning_rate, batch_size ...")],
    out: Annotated[str, typer.Option(help="Folder to write.")],
    text: Annotated[list[str] | None, typer.Option(help="Text column; twice for a text pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Class names in order, with commas; else those of the data.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Id column.")] = None,
    task: Annotated[str, typer.Option(help="Task, of `expunge list`.")] = "text-classification",
    shards: Annotated[int, typer.Option(help="Models, each trained on its own part of the records.")] = 5,
    slices: Annotated[int, typer.Option(help="Stages in which each is trained.")] = 4,
    adapter: Annotated[str, typer.Option(help="none: a full copy a shard; lora: a LoRA adapter a shard.")] = "none",
    rank: Annotated[int, typer.Option(help="Rank of the LoRA adapters.")] = 8,
    max_length: Annotated[int | None, typer.Option(help="Tokens a record is cut to.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; left out: the recipe's.")] = None,
    salt_file: Annotated[str | None, typer.Option(help="File with the secret salt.")] = None,
) -> None:
    """Fine-tune an ensemble (SISA) from which records can be erased exactly and cheaply."""
    from expunge.progress import ConsoleProgress
    from expunge.sisa.build import train_sisa

    made = train_sisa(
        base, data, out=out, recipe=recipe, task=task, text=text or (), label=label,
        labels=[name.strip() for name in labels.split(",")] if labels else (), id=id_, shards=shards, slices=slices,
        adapter=adapter, rank=rank, max_length=max_length, seed=seed, salt_file=salt_file, progress=ConsoleProgress(),
    )  # fmt: skip
    records, passes = sum(map(sum, made.counts)), sum(map(sum, made.passes))
    print(f"{out}: {records} records in {shards} shards of {slices} slices, {passes} example-passes.")
    print(f"Plain fine-tuning on all records would take {made.plan.epochs * records:.0f}.")
    one, ten = made.plan.share_of_one(made.counts), made.plan.share_of(10)
    print(f"Erasing one record will take {float(one):.1%} of that on average, ten at once {float(ten):.1%}.")
    print(f"To erase: expunge run --model {out} --method sisa --forget ids.txt ...")
