"""The command line: parse, call one library function, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge import cli_bench, cli_clean, cli_compare, cli_deep, cli_demo, cli_history, cli_plan, cli_sisa, processes
from expunge.agreeing import agreeing
from expunge.cli_help import PlainHelp
from expunge.cli_options import A_METHOD, A_NAME, with_run_options
from expunge.cli_outcome import gate, show_progress, show_record
from expunge.cli_prepare import prepare, quiet_libraries
from expunge.errors import ExpungeError, Problem, UsageError, printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="expunge",
    cls=PlainHelp,
    help="Make a fine-tuned language model forget the training records you name, and show with evidence that it did.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Config = Annotated[Path | None, typer.Argument(help="A config, as `expunge init` prints it.", show_default=False)]
_Set = Annotated[list[str] | None, typer.Option("--set", help="Change one setting: section.key=value.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line; errors end in one message and an exit code, never in a traceback."""
    try:
        code = app(standalone_mode=False)
        processes.leave()
    except ExpungeError as error:
        _complain(error)
        code = error.exit_code
    except typer.Exit as exit_:
        code = exit_.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print(
            "Stopped: nothing is half-written; what was finished, or is kept to go on from, is there.", file=sys.stderr
        )
        code = 130
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a full disk, rights, a name too long
            print(f'expunge: "{printable(str(error.filename))}" cannot be used ({error.strerror}).', file=sys.stderr)
            code = 1
        elif _shown_as_usage(error):
            code = 2
        else:
            raise
    sys.exit(code)


def _shown_as_usage(error: Any) -> bool:
    """Show what the command-line parser says of a wrong call; False for any other error."""
    parsers = {
        cls.__module__.partition(".exceptions")[0] for cls in type(error).__mro__ if cls.__name__ == "ClickException"
    }
    if not parsers & {"click", "typer._click"}:  # newer typer carries a click of its own
        return False
    error.show()
    return True


def _complain(error: ExpungeError) -> None:
    if error.told:
        return
    if isinstance(error, UsageError):
        count = len(error.problems)
        print(f"expunge: {count} problem{'s' if count > 1 else ''}; nothing was done.", file=sys.stderr)
        for problem in error.problems:
            print(f"  - {printable(str(problem))}", file=sys.stderr)
    else:
        print(f"expunge: {printable(str(error))}", file=sys.stderr)


@app.command()
def init(method: Annotated[str, A_METHOD] = "deepcut") -> None:
    """Print a commented config to fill in."""
    from expunge.template import template

    print(template(method), end="")


@app.command()
@with_run_options
def check(
    options: dict[str, Any],
    config: _Config = None,
    out: Annotated[str | None, typer.Option(help="Folder the run would write.", show_default=False)] = None,
    set_: _Set = None,
) -> None:
    """Look for everything that is wrong with a run, before any weights load."""
    with agreeing():
        prepared = prepare(config, set_, options, out)
    if not processes.first():
        return
    request = prepared.request
    print(
        f"Nothing wrong found. {len(prepared.train)} training records: {len(request.forget)} to forget, "
        f"{len(request.retain)} to retain; {len(prepared.calibration)} for calibration, {len(prepared.evaluation)} "
        f"for evaluation. Method: {prepared.config.as_dict()['method']['name']}."
    )
    cli_plan.warn(prepared)


@app.command()
@with_run_options
def run(
    options: dict[str, Any],
    config: _Config = None,
    out: Annotated[
        str | None, typer.Option(help="Folder to write: model, record.json, report.html.", show_default=False)
    ] = None,
    set_: _Set = None,
    sign: Annotated[Path | None, typer.Option(help="Ed25519 private key (PEM) to sign its history with.")] = None,
    json: _Json = False,
) -> None:
    """Unlearn, audit, and write the model with its record, report and history."""
    with agreeing():
        if out is None:
            way_out = "Name one that does not exist: --out erased/."
            raise UsageError(Problem("--out", "no output folder is named", way_out))
        key = cli_history.signer(sign)
        cli_clean.must_be_free(out)
        prepared = prepare(config, set_, options, out)
    if processes.first():
        cli_plan.warn(prepared)
    with quiet_libraries(), ExitStack() as held:
        from expunge.erase import execute

        progress = show_progress()
        with agreeing():
            paused = _hold(held, out, prepared, progress)
        erased = execute(prepared, progress, paused)
        with agreeing():
            head = erased.save(out, sign=key)
    if processes.first():
        show_record(erased.record, json)
        salt = prepared.config.privacy.salt_file
        cli_history.show_head(erased.record.history["number"], head, salt, json)
        if not json:
            print(f"Report: {Path(out) / 'report.html'}")
    gate(erased.record)


def _hold(held: ExitStack, out: str, prepared: Any, progress: Any) -> Any:
    """Hold the run of this output folder: what an earlier process kept of it; of several processes nothing is kept."""
    from expunge.fingerprint import fingerprint
    from expunge.paused import opened

    decides, every, several = fingerprint(prepared), prepared.config.training.checkpoint_every, processes.count() > 1
    if several:
        decides, every = {**decides, "number of processes": str(processes.count())}, 0.0
    paused = held.enter_context(opened(out, decides, every=every, progress=progress)) if processes.first() else None
    return None if several else paused


@app.command()
@with_run_options
def plan(
    options: dict[str, Any],
    config: _Config = None,
    out: Annotated[str | None, typer.Option(help="Folder the run would write.", show_default=False)] = None,
    set_: _Set = None,
    json: _Json = False,
) -> None:
    """Say before a run whether erasure is needed, what it will cost, and what it cannot show. Writes nothing."""
    prepared = prepare(config, set_, options, out)
    cli_plan.warn(prepared)
    with quiet_libraries():
        from expunge.plan import make_plan
        from expunge.progress import ConsoleProgress

        made = make_plan(prepared, ConsoleProgress())
    if json:
        import json as json_module

        print(json_module.dumps(made.as_dict(), indent=1))
    else:
        cli_plan.show_plan(made)


@app.command(name="audit")
def audit_(
    folder: Annotated[Path, typer.Argument(help="A folder that `expunge run` wrote, or its record.json.")],
    out: Annotated[str, typer.Option(help="Folder to write the new record.json and report.html to.")],
    model: Annotated[str | None, typer.Option(help="Model to audit instead of the one in the folder.")] = None,
    retrained: Annotated[
        list[str] | None, typer.Option(help="Folder of a model retrained without the records.")
    ] = None,
    forget: Annotated[
        str | None, typer.Option(help="File of the ids, where the run was given them one by one.")
    ] = None,
    audit: Annotated[list[str] | None, typer.Option(help="An audit beside those of the run; repeatable.")] = None,
    base: Annotated[str | None, typer.Option(help="Model the original was fine-tuned from.")] = None,
    require: Annotated[str | None, typer.Option(help="population or retrain-compared: exit 3 unless reached.")] = None,
    set_: _Set = None,
    json: _Json = False,
) -> None:
    """Measure an unlearned model again: the same data and request, other audits or more retrained models."""
    with quiet_libraries():
        from expunge.folders import must_be_new
        from expunge.reaudit import reaudit
        from expunge.report import write

        record = reaudit(
            folder, model=model, retrained=retrained or (), forget=forget, more=audit or (), base=base, require=require,
            sets=set_ or (), out=out, extra=must_be_new(out), progress=show_progress(),
        )  # fmt: skip
        with agreeing():
            if processes.first():
                write(record, out)
    if processes.first():
        show_record(record, json)
        if not json:
            print(f"Report: {Path(out) / 'report.html'}")
    gate(record)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `expunge run` wrote, or its record.json.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; left out: report.html beside the record.")
    ] = None,
    show_ids: Annotated[
        bool, typer.Option("--show-ids", help="Insist on raw ids; the run must have kept them.")
    ] = False,
) -> None:
    """Draw the report of a record again."""
    from expunge.config_paths import expanded
    from expunge.folders import whole_file
    from expunge.record import RunRecord
    from expunge.report import render

    out = None if out is None else expanded(out, "--out")
    if out is not None and out.is_dir():
        raise UsageError(Problem("--out", f'"{out}" is a folder', "Name a file: --out report.html."))
    record = RunRecord.read(folder)
    if show_ids and not record.config["privacy"]["show_ids"]:
        way_out = "Raw ids are only kept when the run itself is given --show-ids."
        raise UsageError(Problem("--show-ids", "the record holds salted ids only", way_out))
    target = out or (folder if folder.is_dir() else folder.parent) / "report.html"
    whole_file(target, render(record, str(folder) if folder.is_dir() else None))
    print(target)


@app.command(name="list")
def list_(json: _Json = False) -> None:
    """Name the methods, audits and tasks there are, plug-ins included."""
    from expunge.template import catalogue

    found = catalogue()
    if json:
        import json as json_module

        print(json_module.dumps(found, indent=1))
        return
    for kind, entries in found.items():
        print(f"{kind}:")
        width = max(map(len, entries), default=0)
        for name, summary in entries.items():
            print(f"  {name:<{width}}  {summary}")


@app.command()
def show(
    name: Annotated[str, A_NAME],
    json: _Json = False,
) -> None:
    """Explain a method or audit with its settings, or sum up a run."""
    from expunge import registry

    known = any(name in registry.names(kind) for kind in ("methods", "audits", "tasks"))
    if not known:
        from expunge.config_paths import expanded

        folder = expanded(name, "NAME")
        if folder.exists():
            from expunge.record import RunRecord

            show_record(RunRecord.read(folder), json)
            return
    from expunge.template import explain

    print(explain(name, as_json=json), end="")


app.command()(quiet_libraries()(cli_demo.demo))
app.command()(quiet_libraries()(cli_demo.demo_generation))
app.command()(cli_clean.clean)
app.command()(cli_compare.compare)
app.command()(cli_plan.records)
app.command()(cli_history.history)
app.command()(cli_history.verify)
app.command()(quiet_libraries()(cli_sisa.train_sisa))
_bench = typer.Typer(help="Benchmark methods beside models retrained without the records.", no_args_is_help=True)
_bench.command()(quiet_libraries()(cli_bench.run))
_bench.command()(cli_bench.table)
_bench.command()(quiet_libraries()(cli_bench.lira))
_bench.command()(quiet_libraries()(cli_bench.tofu))
_bench.command()(quiet_libraries()(cli_bench.continual))
_bench.command()(quiet_libraries()(cli_bench.authors))
_bench.command()(quiet_libraries()(cli_bench.deep))
app.add_typer(_bench, name="bench")
_deep = typer.Typer(help="Facts and rules: what can be deduced of a forgotten fact.", no_args_is_help=True)
_deep.command()(cli_deep.plan)
_deep.command()(quiet_libraries()(cli_deep.measure))
app.add_typer(_deep, name="deep")


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if processes.count() > 1 and context.invoked_subcommand not in ("run", "check", "audit"):
        way_out = "Start it without torchrun or accelerate launch; `run`, `check` and `audit` can be shared."
        what = f"expunge {context.invoked_subcommand} cannot be shared among {processes.count()} processes"
        error = UsageError(Problem("processes", what, way_out))
        error.told = not processes.first()
        raise error
    if version:
        from importlib.metadata import version as installed

        print(f"expunge {installed('expunge')}")
        raise typer.Exit(0)
