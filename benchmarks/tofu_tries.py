"""Settings tried on another request than the TOFU benchmark's own: the first two of its twenty authors instead of the last.

    python benchmarks/tofu_tries.py npo --data TOFU --seed 0 --set 'retain="kl"' --set retain_ratio=2 \
        --training learning_rate=6e-5 --training rewind_first=0.6

Models, data and measures are those of `benchmarks/tofu.toml`, read from the same files. The first try trains what it stands
beside and keeps it in --work: the original of its seed, and three models without the request, whose truth ratios go to --out
too. Each try is one JSON there: Kolmogorov-Smirnov distances of the forget records' truth ratios to those of each retrained
model, mean and spread of their logarithms, the answers' probability, and where the stop rule saw the records last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RETRAINED = (0, 1, 2)
TRAINING = {"epochs": 3.0, "min_steps": 1, "batch_size": 8}
"""The budget of the benchmark's methods."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", help="a method's name, as `expunge list` gives it")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the original and of the run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the method, as in TOML"
    )
    parser.add_argument(
        "--training", action="append", default=[], metavar="KEY=VALUE", help="a setting of the training"
    )
    parser.add_argument("--work", type=Path, default=Path("bench-output/work-tofu-other"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tofu-other")
    given = parser.parse_args()
    settings, changed = _values(given.set), _values(given.training)
    training = TRAINING | changed
    found = {"method": given.method, "set": settings, "training": training, "seed": given.seed}
    found |= _tried(given, settings, training)
    words = [given.method, *(f"{key}-{value}" for key, value in (settings | changed).items()), str(given.seed)]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / ("-".join(words) + ".json")).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


def _values(words: list[str]) -> dict[str, Any]:
    return tomllib.loads("\n".join(words))


def _tried(given: argparse.Namespace, settings: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    from scipy.stats import ks_2samp

    from expunge import registry
    from expunge.bench.config import Trial
    from expunge.config import TrainingConfig

    models = _models(given.data, given.work)
    beside = [_retrained(models, seed, given.out) for seed in RETRAINED]
    method = registry.find("methods", given.method)(**settings)
    data = models.data
    run = models.unlearned(
        models.original(given.seed), Trial(method, TrainingConfig(**training)), data.forget, data.retain, given.seed
    )
    seen = _seen(models, run.model)
    tests = [ks_2samp(seen["ratios"], other) for other in beside]
    logs = np.log(seen.pop("ratios"))
    last = run.log["checks"][-1]
    return {
        "distance": [round(float(t.statistic), 4) for t in tests], "p": [round(float(t.pvalue), 3) for t in tests],
        "log ratio": {"mean": round(float(logs.mean()), 3), "sd": round(float(logs.std()), 3)}, **seen,
        "auc": round(last["auc"], 3), "reason": run.log["reason"], "passes": run.passes,
    }  # fmt: skip


def _models(folder: Path, work: Path) -> Any:
    """The benchmark's models for the other request; its file is written into the work folder, with links to the others."""
    from expunge.bench.matrix import weights_hash
    from expunge.bench.tofu_config import TofuConfig
    from expunge.bench.tofu_data import read_tofu
    from expunge.bench.tofu_models import TofuModels
    from expunge.models import load_tokenizer
    from expunge.smollm2 import smollm2_folder

    files = work / "data"
    files.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        if not (files / file.name).exists():
            (files / file.name).symlink_to(file.resolve())
    asked = (folder / "forget10_perturbed.json").read_text(encoding="utf-8").splitlines()[:40]
    (files / "other_perturbed.json").write_text("\n".join(asked) + "\n", encoding="utf-8")
    config = TofuConfig.load(HERE / "tofu.toml")
    config = dataclasses.replace(config, tofu=dataclasses.replace(config.tofu, forget="other_perturbed.json"))
    base = str(smollm2_folder())
    tokenizer = load_tokenizer(base, where="--base")
    return TofuModels(config, read_tofu(config.tofu, files), base, weights_hash(base), tokenizer, work, _say)


def _retrained(models: Any, seed: int, out: Path) -> list[float]:
    """Truth ratios of the forget records under a model that never saw them; kept, so that it is trained once."""
    file = out / f"retrained-{seed}.json"
    if not file.is_file():
        found = _seen(models, models.retrained(seed))
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))["ratios"]


def _seen(models: Any, model: Any) -> dict[str, Any]:
    import numpy as np

    from expunge.bench.tofu import likelihoods, mean_likelihood
    from expunge.token_metrics import truth_ratio

    material, tables, likely = likelihoods(models, model, ("forget",))
    asked = {"retain": models.task.encode(models.data.asked["retain"])}
    tables |= material.scored(model, asked)[0]
    ratios = truth_ratio(likely["forget"]["true"], np.stack(likely["forget"]["false"], axis=1))
    mean = {group: round(float(np.exp(mean_likelihood(tables[group])).mean()), 3) for group in ("forget", "retain")}
    return {"ratios": ratios.tolist(), "probability": mean}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
