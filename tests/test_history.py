"""The history of a model: requests in a row, each a link of a chain; what tampering shows, and what keeps out whom."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from conftest import Job, call
from expunge.history.link import BrokenLinkError, Link, canonical
from expunge.history.signing import PASSWORD, read_signer
from expunge.history.verify import verify
from expunge.record import RunRecord

SETS = ["--set", "training.min_steps=8", "--set", "training.epochs=1.0", "--set", "audit.bootstrap=20"]
SETS += ["--set", "training.learning_rate=5e-4", "--set", 'audit.audits=["utility", "membership"]']


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A new Ed25519 key: the PEM files of its private and public halves."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Chain:
    """Three requests in a row, all signed: folders, ids of each, keys, and what the runs printed."""

    folders: list[Path]
    ids: list[list[str]]
    private: Path
    public: Path
    stranger: Path
    printed: list[tuple[str, str]]

    @property
    def last(self) -> Path:
        return self.folders[-1]

    @property
    def heads(self) -> list[str]:
        return [Link.from_bytes(file.read_bytes()).sha256 for file in sorted((self.last / "erasure").iterdir())]


@pytest.fixture(scope="module")
def chain(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    private, public = key_pair(folder, "key")
    _, stranger = key_pair(folder, "stranger")
    everyone = [row["id"] for row in rows_of(job.train)]
    ids = [everyone[:24], everyone[24:44], everyone[44:56]]
    folders, printed, model = [], [], job.model
    for number, (asked, method) in enumerate(zip(ids, ("gradient-difference", "deepcut", "finetune"), strict=True), 1):
        request, out = folder / f"ids-{number}.txt", folder / f"erased-{number}"
        request.write_text("\n".join(asked), encoding="utf-8")
        words = job.flags(model=model, forget=request, method=method, out=out, sign=private)
        code, said, error = call(["run", *words, *SETS])
        assert code == 0, error
        folders.append(out)
        printed.append((said, error))
        model = out
    return Chain(folders, ids, private, public, stranger, printed)


# --- what a link is ---------------------------------------------------------------------------------------------------


def test_canonical_json_has_one_form() -> None:
    assert canonical({"b": 1.5, "a": ["ü", None, True]}) == '{"a":["ü",null,true],"b":1.5}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no link"),
        (b"[1, 2]", "no link"),
        (b'{"content": 3, "sha256": "", "signature": null}', "no link"),
        (b'{"content": {"schema": 1}, "sha256": "", "signature": null}', "no link"),
        (b"[" * 100_000, "no link"),
        (b"\xff\xfe", "no link"),
    ],
)
def test_what_is_no_link_is_told_and_not_read(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenLinkError, match=reason):
        Link.from_bytes(data)


def test_a_link_says_what_was_done_and_names_nobody(chain: Chain, job: Job) -> None:
    link = Link.from_bytes((chain.last / "erasure" / "0002.json").read_bytes())
    content, record = link.content, RunRecord.read(chain.folders[1])
    salt = job.salt.read_bytes()
    assert list(link.marks) == sorted(hmac.new(salt, i.encode(), "sha256").hexdigest() for i in chain.ids[1])
    assert content["request"]["records"] == 20
    assert content["method"]["name"] == "deepcut"
    assert content["model"]["before"] == record.models["original"]["sha256"]
    assert content["model"]["after"] == record.models["unlearned"]["sha256"]
    weights = hashlib.sha256((chain.folders[1] / "model.safetensors").read_bytes()).hexdigest()
    assert content["model"]["files"]["model.safetensors"] == weights
    assert "record.json" in content["model"]["files"]
    assert "report.html" not in content["model"]["files"], "it may be drawn again"
    assert content["data"] == record.data["hmac"]
    config = json.loads(json.dumps(record.config))
    assert content["config_sha256"] == hashlib.sha256(canonical(config)).hexdigest()
    assert content["environment"] == record.environment
    assert len(content["code"]["sha256"]) == 64
    assert content["audit"]["outcome"] == record.verdict["outcome"]
    auc = record.find("membership AUC (loss or margin)", "unlearned", "forget vs evaluation")
    assert auc is not None
    figures = [f for f in content["audit"]["figures"] if f["name"] == auc.name and f["model"] == "unlearned"]
    assert [f["value"] for f in figures] == [pytest.approx(auc.value, abs=1e-6)]
    first = Link.from_bytes((chain.last / "erasure" / "0001.json").read_bytes())
    assert (link.number, link.previous) == (2, first.sha256)
    assert first.previous is None


def test_the_chain_goes_on_from_folder_to_folder(chain: Chain) -> None:
    for number, folder in enumerate(chain.folders, 1):
        files = sorted(file.name for file in (folder / "erasure").iterdir())
        assert files == [f"{n:04}.json" for n in range(1, number + 1)]
        assert verify(folder).ok
    for name in ("0001.json", "0002.json"):
        copies = {(folder / "erasure" / name).read_bytes() for folder in chain.folders[1:]}
        assert len(copies) == 1, "what was recorded is never written anew"
    names = {file.name for file in chain.last.parent.iterdir()}
    assert not [name for name in names if name.endswith(".partial")], "the folder appears whole"


def test_each_run_tells_its_head_and_what_it_kept_out(chain: Chain) -> None:
    for number, ((said, error), head) in enumerate(zip(chain.printed, chain.heads, strict=True), 1):
        assert f"History: request {number} of this model. Remember its head: {head}" in said
        if number == 1:
            assert "earlier request" not in error
    assert "24 records of the training data were erased by earlier requests" in chain.printed[1][1]
    assert "44 records of the training data were erased by earlier requests" in chain.printed[2][1]
    assert "Request 2: 20 of its 20 records are held and measured again." in chain.printed[2][1]


def test_earlier_records_are_neither_forgotten_nor_retained(chain: Chain, job: Job) -> None:
    record = RunRecord.read(chain.last)
    assert (record.data["train"], record.data["forget"], record.data["retain"]) == (240, 12, 240 - 24 - 20 - 12)
    assert record.history["number"] == 3
    assert record.history["kept_out"] == 44
    assert record.models["original"]["sha256"] == RunRecord.read(chain.folders[1]).models["unlearned"]["sha256"]
    from expunge.checks import check
    from expunge.config import RunConfig

    flags = {"model.path": str(chain.last), "data.train": str(job.train), "data.held_out": str(job.held_out)}
    more = {"data.id": "id", "privacy.salt_file": str(job.salt), "request.where": "label == 'water'"}
    prepared = check(RunConfig.from_dict({}, (), {**flags, **more}))
    gone = {i for ids in chain.ids for i in ids}
    asked = {row["id"] for row in rows_of(job.train) if row["label"] == "water"}
    assert {prepared.train.ids[i] for i in prepared.request.forget} == asked - gone, "a rule skips what is gone"
    assert {prepared.train.ids[i] for i in prepared.request.retain} == {*prepared.train.ids} - asked - gone
    assert {prepared.train.ids[i] for i in prepared.request.erased} == gone
    held = {"train": prepared.train, "calibration": prepared.calibration, "evaluation": prepared.evaluation}
    for part, hashed in record.data["hmac"].items():
        plain = held[part].sha256()
        assert hashed == hmac.new(prepared.salt, plain.encode(), hashlib.sha256).hexdigest(), (
            "without the salt nobody can try out whether a record was in the data"
        )


def test_no_id_and_no_text_stands_in_any_byte_of_the_folder(chain: Chain, job: Job) -> None:
    texts = {row["id"]: row["text"] for row in rows_of(job.train)}
    secrets = [word for ids in chain.ids for i in ids for word in (i, texts[i])]
    files = [file for folder in chain.folders for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], file
    for said, error in chain.printed:
        assert not [secret for secret in secrets if secret in said + error]


# --- tampering --------------------------------------------------------------------------------------------------------


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None], rehash: bool = False) -> None:
    """Change the content of a link, as somebody would who knows how links are written where `rehash` is True."""
    file = folder / "erasure" / name
    values = json.loads(file.read_bytes())
    change(values["content"])
    if rehash:
        values["sha256"] = hashlib.sha256(canonical(values["content"])).hexdigest()
    file.write_bytes(canonical(values) + b"\n")


def fewer(content: dict[str, Any]) -> None:
    content["request"]["records"] -= 1
    content["request"]["marks"].pop()


def swap(folder: Path) -> None:
    one, two = folder / "erasure" / "0001.json", folder / "erasure" / "0002.json"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def unsign(folder: Path) -> None:
    file = folder / "erasure" / "0003.json"
    link = Link.from_bytes(file.read_bytes())
    file.write_bytes(Link(link.content).to_bytes())


def missign(folder: Path) -> None:
    file = folder / "erasure" / "0003.json"
    link = Link.from_bytes(file.read_bytes())
    assert link.signature is not None
    wrong = ("0" if link.signature["signature"][0] != "0" else "1") + link.signature["signature"][1:]
    file.write_bytes(Link(link.content, {**link.signature, "signature": wrong}).to_bytes())


def resign(folder: Path) -> None:
    """Sign an edited last link with a key of one's own."""
    private, _ = key_pair(folder.parent, "forger")
    signer, file = read_signer(private), folder / "erasure" / "0003.json"
    content = dict(Link.from_bytes(file.read_bytes()).content)
    file.write_bytes(signer.sign({**content, "signed_by": signer.fingerprint}).to_bytes())


TAMPERING: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "one bit of the weights": (lambda f: flip(f / "model.safetensors", -1), "weights", "model.safetensors is not the file"),
    "one bit of their header": (lambda f: flip(f / "model.safetensors", 9), "weights", "model.safetensors is not the file"),
    "weights gone": (lambda f: (f / "model.safetensors").unlink(), "weights", "model.safetensors is missing"),
    "other weights beside": (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "weights", "was not there when"),
    "code beside": (lambda f: (f / "modeling_x.py").write_text("1"), "weights", "was not there when"),
    "an edited record.json": (lambda f: flip(f / "record.json", 40), "files", "record.json is not the file"),
    "an edited config.json": (lambda f: flip(f / "config.json", 40), "files", "config.json is not the file"),
    "an edited first link": (lambda f: edit(f, "0001.json", fewer), "chain", "0001.json: its content is not what"),
    "an edited last link": (lambda f: edit(f, "0003.json", fewer), "chain", "0003.json: its content is not what"),
    "a first link edited with its hash": (
        lambda f: edit(f, "0001.json", fewer, rehash=True), "chain", "Request 2 does not follow request 1",
    ),
    "a last link edited with its hash": (
        lambda f: edit(f, "0003.json", fewer, rehash=True), "signatures", "The signature of request 3 is wrong",
    ),
    "one byte of a link's form": (
        lambda f: (f / "erasure" / "0002.json").write_bytes((f / "erasure" / "0002.json").read_bytes() + b" "),
        "chain", "0002.json: it is not written as links are",
    ),
    "half a link": (
        lambda f: (f / "erasure" / "0002.json").write_bytes((f / "erasure" / "0002.json").read_bytes()[:99]),
        "chain", "0002.json: it is no link",
    ),
    "the first link removed": (lambda f: (f / "erasure" / "0001.json").unlink(), "chain", "link of request 1 is missing"),
    "a middle link removed": (lambda f: (f / "erasure" / "0002.json").unlink(), "chain", "link of request 2 is missing"),
    "a middle link removed, the rest moved up": (
        lambda f: (f / "erasure" / "0003.json").rename(f / "erasure" / "0002.json"),
        "chain", "0002.json is the link of request 3",
    ),
    "links in another order": (swap, "chain", "0001.json is the link of request 2"),
    "the last link removed": (lambda f: (f / "erasure" / "0003.json").unlink(), "weights", "is not the file that request 2"),
    "every link removed": (lambda f: [x.unlink() for x in (f / "erasure").iterdir()], "chain", "every link is missing"),
    "a file that is no link": (lambda f: (f / "erasure" / "note.txt").write_text("x"), "chain", "note.txt is no link"),
    "a signature removed": (unsign, "signatures", "The signature of request 3 is missing"),
    "a wrong signature": (missign, "signatures", "The signature of request 3 is wrong"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering_is_detected_and_told(chain: Chain, tmp_path: Path, case: str) -> None:
    change, name, sentence = TAMPERING[case]
    folder = tmp_path / "erased"
    shutil.copytree(chain.last, folder)
    change(folder)
    found = verify(folder)
    wrong = {check.name: " ".join(check.said) for check in found.checks if check.ok is False}
    assert not found.ok
    assert sentence in wrong[name]
    code, out, error = call(["verify", str(folder)])
    assert code == 3
    assert "NOT VERIFIED." in out
    assert sentence in out
    assert "Traceback" not in out + error


def test_one_flipped_byte_in_any_file_is_detected(chain: Chain, tmp_path: Path) -> None:
    """Of every file at its first byte, its last and some between; report and card alone may be drawn again."""
    folder = tmp_path / "erased"
    shutil.copytree(chain.last, folder)
    files = [
        file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in ("report.html", "README.md")
    ]
    assert {"model.safetensors", "record.json", "config.json", "0001.json", "0003.json"} <= {
        file.name for file in files
    }
    for file in files:
        good = file.read_bytes()
        for place in {0, 9, len(good) // 3, len(good) // 2, len(good) - 1}:
            data = bytearray(good)
            data[place] ^= 0xFF
            file.write_bytes(bytes(data))
            assert not verify(folder).ok, (file.name, place)
        file.write_bytes(good)
    assert verify(folder).ok


def test_an_untouched_folder_verifies_and_says_what_that_does_not_prove(chain: Chain) -> None:
    words = ["verify", str(chain.last), "--public-key", str(chain.public), "--head", chain.heads[-1]]
    code, out, _ = call(words)
    assert code == 0
    for sentence in (
        "chain: holds", "weights: holds", "files: holds", "signatures: holds", "head: holds", "3 links, each naming",
        "3 of 3 links are signed, rightly, by the key given", f"Head: {chain.heads[-1]}", "This does not prove:",
        "were not learnt elsewhere", "no copy of the model before erasure", "beyond what the audits named",
    ):  # fmt: skip
        assert sentence in out, sentence
    code, out, _ = call(["verify", str(chain.last), "--json"])
    assert code == 0
    values = json.loads(out)
    assert values["ok"] is True
    assert values["head"] == chain.heads[-1]
    assert any("cut off" in limit for limit in values["does_not_prove"]), "no head was remembered"


def test_a_folder_set_back_whole_is_told_by_the_head_alone(chain: Chain) -> None:
    """The folder of request 2 is a whole one: that request 3 was cut off shows only to who remembers its head."""
    folder = str(chain.folders[1])
    assert verify(folder).ok
    code, out, _ = call(["verify", folder, "--head", chain.heads[2][:16]])
    assert code == 3
    assert "The head remembered is no link of this history" in out
    code, out, _ = call(["verify", str(chain.last), "--head", chain.heads[1]])
    assert code == 0
    assert "The one remembered is request 2; 1 followed it." in out


def test_a_history_written_anew_is_told_by_the_key_alone(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "erased"
    shutil.copytree(chain.last, folder)
    resign(folder)
    assert verify(folder).ok, "the signature is right, by a key that nobody knows"
    code, out, _ = call(["verify", str(folder), "--public-key", str(chain.public)])
    assert code == 3
    assert "Request 3 is signed by another key than the one given." in out
    code, out, _ = call(["verify", str(chain.last), "--public-key", str(chain.stranger)])
    assert code == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["verify", "{model}"], "it has no history"),
        (["history", "{model}"], "it has no history"),
        (["verify", "{erased}", "--head", "abc"], "'abc' is no hash of a link"),
        (["verify", "{erased}", "--head", "z" * 64], "is no hash of a link"),
        (["verify", "{erased}", "--public-key", "{folder}/none.pem"], "cannot be read (No such file"),
        (["verify", "{erased}", "--public-key", "{erased}/config.json"], "is no public key that can be read"),
        (["verify", "{erased}", "--public-key", "{folder}/x25519.pem"], "another kind than Ed25519"),
    ],
)
def test_wrong_calls_are_told(chain: Chain, job: Job, tmp_path: Path, words, sentence) -> None:
    other = X25519PrivateKey.generate().public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "x25519.pem").write_bytes(pem)
    places = {"model": job.model, "erased": chain.last, "folder": tmp_path}
    code, _, error = call([word.format(**places) for word in words])
    assert code == 2
    assert sentence in error
    assert "Traceback" not in error


def test_keys_to_sign_with_are_tried_before_the_run(job: Job, chain: Chain, tmp_path: Path, monkeypatch) -> None:
    for bad, sentence in ((chain.public, "is no private key"), (tmp_path / "none.pem", "cannot be read")):
        words = ["run", *job.flags(out=tmp_path / "out", sign=bad)]
        code, _, error = call(words)
        assert code == 2
        assert sentence in error
    locked = tmp_path / "locked.pem"
    form = serialization.BestAvailableEncryption(b"a password of the tests")
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form
    )
    locked.write_bytes(pem)
    code, _, error = call(["run", *job.flags(out=tmp_path / "out", sign=locked)])
    assert code == 2
    assert PASSWORD in error
    monkeypatch.setenv(PASSWORD, "a password of the tests")
    assert len(read_signer(locked).public) == 64
    assert not (tmp_path / "out").exists()


def test_without_cryptography_all_but_the_signatures_is_checked(chain: Chain, monkeypatch) -> None:
    monkeypatch.setattr("expunge.history.signing.available", lambda: False)
    code, out, _ = call(["verify", str(chain.last)])
    assert code == 0
    assert "signatures: not checked" in out
    assert "pip install cryptography" in out
    code, _, error = call(["verify", str(chain.last), "--public-key", str(chain.public)])
    assert code == 2
    assert "cryptography, which is not installed" in error


def test_the_history_is_shown(chain: Chain) -> None:
    code, out, _ = call(["history", str(chain.last)])
    assert code == 0
    for number, (records, method) in enumerate(((24, "gradient-difference"), (20, "deepcut"), (12, "finetune")), 1):
        assert f"Request {number}, 20" in out
        assert f"{records} records, {method}; verdict" in out
    assert "membership AUC (loss or margin), forget vs evaluation" in out
    assert "This does not prove:" in out
    code, out, _ = call(["history", str(chain.last), "--json"])
    assert [link["number"] for link in json.loads(out)["links"]] == [1, 2, 3]
