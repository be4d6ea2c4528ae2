"""Malformed models, settings, places to write and records: what each message must name, and the way out it must show."""

# ruff: noqa: E501 - a table, one case a line

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from malformed_desk import Bad, Words

__all__ = ["SETTINGS"]

WEIGHTS = "model.safetensors"


def model(change: Callable[[Path], object], kind: str = "classifier", **changes: object) -> Words:
    """A run on a model folder with something done to it."""
    return lambda desk, tmp: desk.run(tmp, kind, model=desk.model(tmp, change, kind), **changes)


def config(kind: str = "classifier", **values: object) -> Words:
    """A run on a model whose config.json says otherwise."""
    return model(lambda folder: edited(folder / "config.json", **values), kind)


def edited(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def weights(change: Callable[[dict[str, Any]], object], kind: str = "classifier") -> Words:
    """A run on a model whose weights were changed."""

    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return model(apply, kind)


def bytes_of_weights(change: Callable[[bytes], bytes]) -> Words:
    return model(lambda f: (f / WEIGHTS).write_bytes(change((f / WEIGHTS).read_bytes())))


def linked(name: str) -> Words:
    """A run on a model folder in which a file is a link to one outside."""

    def words(desk: Any, tmp: Path) -> list[str]:
        def change(folder: Path) -> None:
            (folder / name).rename(tmp / f"elsewhere-{name}")
            (folder / name).symlink_to(tmp / f"elsewhere-{name}")

        return desk.run(tmp, model=desk.model(tmp, change))

    return words


def adapter_with_link(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x"}), encoding="utf-8")
    (folder / "README.md").symlink_to(folder.parent / "secret")


def index(shard: str) -> Words:
    """A run on a model whose weights are said to lie in a file."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "other.safetensors")
        content = {"metadata": {}, "weight_map": {"classifier.weight": shard}}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(content), encoding="utf-8")

    return model(change)


def toml(text: str | bytes) -> Words:
    """A run with a config file of its own."""

    def words(desk: Any, tmp: Path) -> list[str]:
        (tmp / "run.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        first, *rest = desk.run(tmp)
        return [first, str(tmp / "run.toml"), *rest]

    return words


def set_(*words: str, kind: str = "classifier", **changes: object) -> Words:
    return lambda desk, tmp: desk.run(tmp, kind, set=words, **changes)


def recipe(text: str | bytes) -> Words:
    def words(desk: Any, tmp: Path) -> list[str]:
        (tmp / "recipe.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        return desk.run(tmp, retrain=True, base=desk.model(tmp, lambda _: None), recipe=tmp / "recipe.toml")

    return words


def record(content: str | bytes, command: str = "show") -> Words:
    """A command on a record.json of its own."""

    def words(desk: Any, tmp: Path) -> list[str]:
        (tmp / "folder").mkdir()
        (tmp / "folder" / "record.json").write_bytes(content.encode() if isinstance(content, str) else content)
        more = ["--out", str(tmp / "new")] if command == "audit" else []
        return [command, str(tmp / "folder"), *more]

    return words


def link(content: str | bytes, command: str = "history") -> Words:
    """A command on a folder with one link of a history."""

    def words(desk: Any, tmp: Path) -> list[str]:
        (tmp / "folder" / "erasure").mkdir(parents=True)
        (tmp / "folder" / "erasure" / "0001.json").write_bytes(
            content.encode() if isinstance(content, str) else content
        )
        return [command, str(tmp / "folder")]

    return words


def fill(name: str, value: float) -> Words:
    return weights(lambda tensors: tensors[name].fill_(value))


def wider(tensors: dict[str, Any]) -> None:
    import torch

    tensors["classifier.weight"], tensors["classifier.bias"] = torch.zeros(5, 32), torch.zeros(5)


def other_names(tensors: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors[f"x.{name}"] = tensors.pop(name)


def headless(tensors: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith("classifier")]:
        del tensors[name]


def many_tokens(folder: Path) -> None:
    """A tokenizer that numbers a word of the records beyond the model's embeddings."""
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["model"]["vocab"]["river"] = 9999
    file.write_text(json.dumps(values), encoding="utf-8")


HEADER_BOMB = struct.pack("<Q", 2**62) + b"{}"
NAN_LATER = ("training.learning_rate=1e30", "training.max_grad_norm=0.0", "training.min_steps=8", "stop.rule=none")

SETTINGS: list[Bad] = [
    # models
    Bad("a model without its head", weights(headless), ("lacks weights", "classifier.bias"), "with its classification head"),
    Bad("weights of five classes for three", weights(wider), ("cannot be loaded", "other shapes"), "save_pretrained"),
    Bad("weights of other names", weights(other_names), ("lacks weights",), "Give a whole model"),
    Bad("NaN weights", fill("classifier.weight", float("nan")), ("NaN or infinite", "classifier.weight"), "intact copy"),
    Bad("infinite weights", fill("bert.embeddings.LayerNorm.weight", float("inf")), ("NaN or infinite", "LayerNorm"), "intact copy"),
    Bad("a cut safetensors file", bytes_of_weights(lambda b: b[:-50]), ("cannot be loaded",), "save_pretrained"),
    Bad("a safetensors file cut in its header", bytes_of_weights(lambda b: b[:100]), ("cannot be loaded",), "save_pretrained"),
    Bad("an empty safetensors file", bytes_of_weights(lambda b: b""), ("cannot be loaded",), "save_pretrained"),
    Bad("a safetensors header of 4 EiB", bytes_of_weights(lambda b: HEADER_BOMB), ("cannot be loaded",), "save_pretrained"),
    Bad("a safetensors header that is no JSON", bytes_of_weights(lambda b: b[:8] + b"x" * (len(b) - 8)), ("cannot be loaded",), "save_pretrained"),
    Bad("a pickle named .safetensors", bytes_of_weights(lambda b: pickle.dumps({"x": 1})), ("cannot be loaded",), "save_pretrained"),
    Bad("weights linked to another folder", linked(WEIGHTS), (WEIGHTS, "elsewhere-"), "Copy the file"),
    Bad("a config linked to another folder", linked("config.json"), ("config.json", "elsewhere-"), "Copy the file"),
    Bad("a secret linked from an adapter's folder", model(adapter_with_link), ("README.md", "secret"), "Copy the file"),
    Bad("a link further down", model(lambda f: [(f / "more").mkdir(), (f / "more" / "x").symlink_to("/etc/hostname")]), ("more/x", "hostname"), "Copy the file"),
    Bad("a link to nowhere", model(lambda f: (f / "note.json").symlink_to("nowhere")), ("note.json", "nowhere"), "Copy the file"),
    Bad("a shard that is missing", index("model-1-of-1.safetensors"), ("model-1-of-1.safetensors",), "save_pretrained"),
    Bad("a shard outside the folder", index("../classifier/model.safetensors"), ("../classifier",), "save_pretrained"),
    Bad("a model of no kind that is known", config(model_type="nobody-knows"), ("nobody-knows",), "save_pretrained"),
    Bad("a model that wants its own code run", config(model_type="own", auto_map={"AutoConfig": "m.C"}), ("trust_remote_code",), "where you trust its author"),
    Bad("a config that is a list", model(lambda f: (f / "config.json").write_text("[]")), ("model.path", "cannot be loaded"), "save_pretrained"),
    Bad("a config in UTF-16", model(lambda f: (f / "config.json").write_bytes("{}".encode("utf-16"))), ("cannot be loaded",), "save_pretrained"),
    Bad("no layers' size", config(hidden_size=0), ("cannot be loaded",), "save_pretrained"),
    Bad("heads that do not divide", config(num_attention_heads=5), ("cannot be loaded", "5"), "save_pretrained"),
    Bad("a text for a size", config(hidden_size="wide"), ("cannot be loaded", "hidden_size"), "save_pretrained"),
    Bad("one class", config(id2label={"0": "water"}), ("single output",), "single-label"),
    Bad("two classes of one name", config(id2label={"0": "water", "1": "water", "2": "music"}), ('"water"', "twice"), "own name"),
    Bad("classes named by other keys", config(id2label={"a": "water", "b": "machine", "c": "music"}), ("cannot be loaded",), "save_pretrained"),
    Bad("a broken tokenizer", model(lambda f: (f / "tokenizer.json").write_text("{")), ("the tokenizer of",), "tokenizer.save_pretrained"),
    Bad("a tokenizer with words the model has not", model(many_tokens), ("9999", "250"), "the tokenizer the model was trained with"),
    Bad("a tagger for texts", lambda d, t: d.run(t, model=d.folder / "tagger"), ('no column "tokens"',), "Its columns: id, text, label"),
    Bad("a classifier for sentences", lambda d, t: d.run(t, "tagger", model=d.folder / "classifier"), ('no column "text"',), "Its columns"),
    Bad("class names for a language model", lambda d, t: d.run(t, "causal", labels="a,b"), ("2 names",), "Leave data.labels out"),
    Bad("a template without a prompt", lambda d, t: d.run(t, "causal", template="Q: {answer}"), ("'Q: {answer}'",), "{prompt} once"),
    Bad("a method that knows only classes", lambda d, t: d.run(t, "causal", method="random-labels"), ("random-labels",), "These do"),
    Bad("a method that knows only tokens", lambda d, t: d.run(t, method="altpo"), ("altpo",), "These do"),
    # settings
    Bad("a config that is missing", lambda d, t: ["run", str(t / "no.toml"), *d.run(t)[1:]], ("no.toml", "cannot be read"), "Give the path of a TOML file"),
    Bad("a config that is a folder", lambda d, t: ["run", str(d.folder), *d.run(t)[1:]], ("cannot be read", "directory"), "Give the path of a TOML file"),
    Bad("half a config", toml("[method\nname = 'npo'"), ("run.toml", "line 1"), "expunge init"),
    Bad("a config in Latin-1", toml("# año".encode("latin-1")), ("run.toml", "not valid TOML"), "expunge init"),
    Bad("a config with a NUL", toml("seed = 1\0"), ("run.toml", "not valid TOML"), "expunge init"),
    Bad("a section twice", toml("[stop]\nevery = 1\n[stop]\nevery = 2\n"), ("run.toml", "stop"), "expunge init"),
    Bad("a config nested without end", toml("x = " + "[" * 20_000), ("run.toml", "nested"), "expunge init"),
    Bad("a method without a table", toml("method = 'npo'\n"), ("'npo'",), "[method]"),
    Bad("a section that is a list", toml("[[training]]\nepochs = 1.0\n"), ("training", "not a section"), "[training]"),
    Bad("a key of another section", toml("[training]\ngamma = 1.0\n"), ('unknown key "gamma"',), "Known keys"),
    Bad("a mistyped key", toml("[training]\nlearning_rat = 1.0\n"), ('unknown key "learning_rat"',), 'Did you mean "learning_rate"?'),
    Bad("a date for a seed", toml("seed = 2024-01-01\n"), ("2024",), "whole number"),
    Bad("a truth value for a seed", toml("seed = true\n"), ("True",), "whole number"),
    Bad("a number too large for anything", toml(f"[training]\nlearning_rate = {'9' * 400}\n"), ("training.learning_rate", "999"), "valid number"),
    Bad("a text for a list", toml("[audit]\naudits = 'utility,membership'\n"), ("utility,membership",), "Known"),
    Bad("a list for a text", toml("[data]\nparaphrased = ['id']\n"), ("data.paraphrased", "('id',)"), "string"),
    Bad("nothing before the equals sign", set_("=1"), ("unknown",), "Known sections"),
    Bad("a key without a section", set_("gamma=1"), ('"gamma"',), "Known sections"),
    Bad("a key too deep", set_("method.gamma.x=1"), ('"gamma.x"',), "Known keys"),
    Bad("a setting of a setting", set_("seed.x=1"), ("seed",), "seed"),
    Bad("a learning rate of nothing", set_("training.learning_rate=0"), ("training.learning_rate", "0"), "greater than 0"),
    Bad("an infinite learning rate", set_("training.learning_rate=inf"), ("training.learning_rate", "inf"), "finite"),
    Bad("a negative number of steps", set_("training.min_steps=-1"), ("training.min_steps", "-1"), "greater than or equal to 0"),
    Bad("passes without end", set_("training.epochs=1e300"), ("training.epochs", "1e+300"), "less than or equal to"),
    Bad("no records a step", set_("training.batch_size=0"), ("training.batch_size", "0"), "greater than or equal to 1"),
    Bad("a certainty of one", set_("stop.confidence=1.0"), ("stop.confidence", "1.0"), "less than 1"),
    Bad("an unknown schedule", set_("training.scheduler=cosin"), ("'cosin'",), "cosine"),
    Bad("an unknown precision", set_("training.precision=float16"), ("'float16'",), "bfloat16"),
    Bad("no resamples", set_("audit.bootstrap=0"), ("audit.bootstrap", "0"), "greater than or equal to 1"),
    Bad("a length without room", lambda d, t: d.run(t, max_length=2), ("2 tokens leave no room",), "Give more"),
    Bad("no views", set_("method.views=0"), ("method.views", "0"), "greater than"),
    Bad("a share of more than all in warming up", set_("training.warmup=1.5"), ("training.warmup", "1.5"), "less than or equal to 1"),
    Bad("a rank below nothing", set_("training.lora_rank=-4"), ("training.lora_rank", "-4"), "greater than or equal to 0"),
    Bad("a recipe that is no TOML", recipe("epochs: 3"), ("recipe.toml", "not valid TOML"), "TOML"),
    Bad("a recipe with a text for a number", recipe("epochs = 'three'\n"), ("recipe.epochs", "'three'"), "number"),
    Bad("a base that is the model", lambda d, t: d.run(t, retrain=True, base=d.folder / "classifier", recipe=t / "r.toml"),
        ("the fine-tuned model itself", "r.toml"), "Give the model it was fine-tuned from"),
    Bad("a salt that is a folder", lambda d, t: d.run(t, salt_file=d.folder), ("salt", "directory"), "at least 16 secret bytes"),
    # places to write
    Bad("output within a file", lambda d, t: d.run(t, out=d.folder / "salt" / "out"), ("salt/out", "not a writable folder"), "Name another place"),
    Bad("output of no name", lambda d, t: d.run(t, out=""), ('""',), "Name a folder"),
    Bad("output of a long name", lambda d, t: d.run(t, out=t / ("o" * 300)), ("ooo", "too long"), "255 bytes"),
    Bad("output of a name that is long beside it", lambda d, t: d.run(t, out=t / ("o" * 240)), ("ooo", "240 bytes"), "230 bytes"),
    Bad("output within the model", lambda d, t: d.run(t, out=d.folder / "classifier" / "out"), ("classifier/out", "within the model"), "Name another place"),
    Bad("output in nobody's home", lambda d, t: d.run(t, out="~nobody-at-all/out"), ("~nobody-at-all",), "Write the whole path"),
    # records and histories
    Bad("a record that is no JSON", record("{"), ("no run record",), "expunge run"),
    Bad("a record that is a list", record("[]"), ("no run record",), "expunge run"),
    Bad("a record of another version", record('{"schema": 99}'), ("99",), "version of Expunge"),
    Bad("a record without its parts", record('{"schema": 1}', "report"), ("no run record",), "expunge run"),
    Bad("a record of rubbish", record(bytes(range(256)), "records"), ("no record.json to read",), "expunge run"),
    Bad("a record nested without end", record("[" * 200_000, "audit"), ("no run record",), "expunge run"),
    Bad("a record of wrong parts", record(json.dumps({"schema": 1, **dict.fromkeys(("config", "environment", "data", "request", "models", "training", "cost", "verdict", "figures", "timings", "not_measured"), 1),
        "measurements": [], "records": []})), ("no run record",), "expunge run"),
    Bad("no history", lambda d, t: ["history", str(d.folder / "classifier")], ("no history", "erasure"), "expunge run"),
    Bad("a link nested without end", link("[" * 200_000, "verify"), ("0001.json", "no link"), "NOT VERIFIED", 3),
    Bad("a link of rubbish", link(bytes(range(256)), "verify"), ("0001.json", "no link"), "NOT VERIFIED", 3),
    Bad("a remembered head that is none", lambda d, t: ["verify", str(d.folder / "classifier"), "--head", "xyz"], ("'xyz'",), "12"),
    # what only the run can know
    Bad("a model that its only step broke", set_(*NAN_LATER, "training.min_steps=1"), ("outputs are NaN or infinite",),
        "lower training.learning_rate", 1),
    Bad("a loss that becomes NaN half-way", set_(*NAN_LATER), ("not finite at step",), "Lower training.learning_rate", 1),
]  # fmt: skip
