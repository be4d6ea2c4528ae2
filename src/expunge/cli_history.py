"""`expunge history` and `expunge verify`, and what the command line says of earlier requests before and after a run."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["history", "show_head", "signer", "verify", "warn"]

_Folder = Annotated[Path, typer.Argument(help="A model folder that `expunge run` wrote.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_WORDS = {True: "holds", False: "DOES NOT HOLD", None: "not checked"}


def history(folder: _Folder, json: _Json = False) -> None:
    """Show what was erased from a model: one line a request, from the chain in its folder. Checks the chain only."""
    from expunge.config_paths import expanded
    from expunge.history.verify import LIMITS, read_links

    links, wrong = read_links(expanded(folder, "FOLDER"))
    if json:
        shown = [{**link.content, "sha256": link.sha256} for link in links]
        print(
            json_module.dumps({"links": shown, "wrong": wrong, "does_not_prove": LIMITS}, indent=1, ensure_ascii=False)
        )
    else:
        for link in links:
            print("\n".join(_lines(link)))
        if links:
            print(f"Head: {links[-1].sha256}")
        for sentence in wrong:
            print(f"WRONG: {sentence}")
        _unproven(LIMITS)
    if wrong:
        raise typer.Exit(3)


def _lines(link: Any) -> list[str]:
    content = link.content
    request, audit, model = content["request"], content["audit"], content["model"]
    lines = [
        f"Request {link.number}, {content['when']}: {request['records']} record{'s' if request['records'] != 1 else ''}, "
        f"{content['method']['name']}; verdict {audit['outcome']} ({audit['evidence']})",
        f"  weights {model['before'][:16]} ... -> {model['after'][:16]} ...; link {link.sha256[:16]} ..., "
        f"{'signed by ' + str(content['signed_by'])[:16] + ' ...' if content.get('signed_by') else 'not signed'}",
    ]
    if content.get("adopted"):
        lines.append("  Taken over from the record.json of a run that kept no history.")
    lines += [f"  {row['name']}, {row['group']}: {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] (n = {row['n']})"
              for row in audit["figures"] if row["model"] == "unlearned"]  # fmt: skip
    lines += [f"  {found['kind'].capitalize()} ({found['audit']}): {found['sentence']}" for found in audit["findings"]]
    return lines


def verify(
    folder: _Folder,
    public_key: Annotated[
        list[Path] | None, typer.Option(help="PEM file of the key it must be signed with; repeatable.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="Hash of the last link, remembered from its run.")] = None,
    json: _Json = False,
) -> None:
    """Check a model's history: chain, weights, signatures. Exit code 3 when anything does not hold."""
    from expunge.config_paths import expanded
    from expunge.history.signing import read_public_key
    from expunge.history.verify import verify as verified

    place = expanded(folder, "FOLDER")
    keys = [read_public_key(expanded(path, "--public-key")) for path in public_key or ()]
    found = verified(place, public_keys=keys, head=head)
    if json:
        checks = [{"name": check.name, "ok": check.ok, "said": check.said} for check in found.checks]
        values = {"ok": found.ok, "head": found.head, "checks": checks, "does_not_prove": found.unproven}
        print(json_module.dumps(values, indent=1, ensure_ascii=False))
    else:
        for check in found.checks:
            print(f"{check.name}: {_WORDS[check.ok]}")
            print("\n".join(f"  {sentence}" for sentence in check.said))
        print(f"Head: {found.head}" if found.head else "Head: none")
        print("Verified." if found.ok else "NOT VERIFIED.")
        _unproven(found.unproven)
    if not found.ok:
        raise typer.Exit(3)


def _unproven(limits: Any) -> None:
    print("This does not prove:")
    print("\n".join(f"  - {limit}" for limit in limits))


def signer(path: Path | None) -> Any:
    """The private key to sign with.

    Raises:
        UsageError: It cannot be used.
    """
    if path is None:
        return None
    from expunge.config_paths import expanded
    from expunge.history.signing import read_signer

    return read_signer(expanded(path, "--sign"))


def show_head(number: int, head: str, salt_file: str | None, quiet: bool) -> None:
    """Say which request of the model this was, and what to remember; on stderr where stdout is for JSON."""
    from expunge.privacy import salt_path

    text = (
        f"History: request {number} of this model. Remember its head: {head}\n"
        f"The next request needs the same salt, so keep it like a key: {salt_path(salt_file)}"
    )
    print(text, file=sys.stderr if quiet else sys.stdout)


def warn(prepared: Any) -> None:
    """Say on stderr what earlier requests mean for this run."""
    history = prepared.history
    if history is None:
        return
    count = len(history.links)
    lines = [
        f"{count} earlier request{'s' if count > 1 else ''} of this model: this is request {count + 1} of its history."
    ]
    if out := len(prepared.request.erased):
        lines.append(
            f"{out} records of the training data were erased by earlier requests: they are neither forgotten nor retained."
        )
    if again := prepared.request.again:
        lines.append(f"{again} records to forget were erased before, and are erased again.")
    if prepared.erased_held_out:
        lines.append(f"{prepared.erased_held_out} held-out records were erased by earlier requests: they are left out.")
    for link in history.links:
        held, records = prepared.past.get(link.number), link.content["request"]["records"]
        if held is None:
            lines.append(f"Request {link.number}: not measured again, its records are no longer held (--past-records).")
        else:
            lines.append(f"Request {link.number}: {len(held)} of its {records} records are held and measured again.")
    if prepared.strange:
        lines.append(f"{prepared.strange} records given with --past-records are of no earlier request.")
    for line in lines:
        print(line, file=sys.stderr)
