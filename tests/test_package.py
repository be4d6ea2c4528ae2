"""The package as a whole: imports run one way, start-up is quick, names are public."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import expunge

SOURCE = Path(expunge.__file__).parent

# A module may import those of its own layer and of the layers above it in this list.
LAYERS = [
    {"errors"},
    {"processes"},
    {"collectives"},
    {"agreeing"},
    {
        "options",
        "config_paths",
        "stats",
        "matching",
        "random_state",
        "attacks",
        "progress",
        "comparing",
        "probe",
        "adapter",
    },
    {
        "registry",
        "folders",
        "snapshot",
        "paused",
        "trainer_state",
        "kept_models",
        "resumable",
        "fit_checkpoints",
        "versioned",
        "privacy",
        "record",
        "record_shape",
        "history.link",
        "history.hashes",
        "history.signing",
        "history.verify",
        "history.entry",
        "losses",
        "sampling",
        "information",
    },
    {"token_losses", "token_metrics", "token_attacks", "preference"},
    {"tasks.on_demand"},
    {"config", "tasks.base", "data.records"},
    {
        "models",
        "adapter_folder",
        "head",
        "card",
        "sisa",
        "o3",
        "offset",
        "data.condition",
        "data.ids",
        "data.long_text",
        "data.tables",
        "data.unpacking",
        "data.conll",
        "data.mention",
        "data.sources",
        "data.alternatives",
        "data.duplicates",
        "data.held_out",
        "data.near_duplicates",
        "data.rare_pieces",
        "data.request",
        "data.rewording",
        "deep",
        "tasks.labels",
        "tasks.kinds",
        "tasks.text_classification",
        "tasks.token_classification",
        "tasks.generation",
        "token_head",
        "token_sums",
        "generating",
        "demo_words",
        "demo_wordings",
        "demo_people",
        "demo_facts",
        "smollm2",
        "demo_data",
    },
    {"layer_states", "length_groups", "halfway", "reading", "history.earlier"},
    {"scoring", "token_scoring", "template", "summary", "record_table", "testing"},
    {"tiny_jobs"},
    {"metrics", "reference", "partner_queue", "step", "token_reference"},
    {"stopping"},
    {"foresight"},
    {"looking"},
    {"callback"},
    {"kernel_step", "leave_out", "methods.base", "audits.base"},
    {"record_targets", "retain_term"},
    {"sheet"},
    {"methods", "audits", "stress", "token_stress", "figures", "page", "deep.probing", "deep.measuring"},
    {
        "preparation",
        "resumable_unlearning",
        "step_batches",
        "gathering",
        "in_turns",
        "referring",
        "fit",
        "memorisation",
        "history.returned",
        "plan_cost",
        "verdict",
        "glossary",
        "record_rows",
        "cost_rows",
    },
    {"report", "compare_runs", "compare_page"},
    {"sharding"},
    {"shared_trainer"},
    {"trainer", "checkpoints", "rewound_start"},
    {"unlearning", "conformance_stage"},
    {"kept_outcome"},
    {"retraining"},
    {"conformance", "trajectory"},
    {"conformance_audits"},
    {"model_kinds"},
    {"suitability", "neighbours", "chosen_audits", "shareable", "apart"},
    {"checks"},
    {"history.section", "history.write", "next_request"},
    {"evidence", "fingerprint"},
    {"execution", "bench"},
    {"opening"},
    {"erase", "sisa.build"},
    {"demo", "plan", "reaudit"},
    {"demo_generation"},
    {
        "cli_bench",
        "cli_clean",
        "cli_compare",
        "cli_deep",
        "cli_demo",
        "cli_help",
        "cli_history",
        "cli_outcome",
        "cli_plan",
        "cli_sisa",
        "cli_options",
    },
    {"cli_prepare"},
    {"cli"},
    {"__init__", "__main__"},
]


def layer(module: str) -> int:
    found = [n for n, names in enumerate(LAYERS) if module in names]
    if not found:
        package = module.split(".", maxsplit=1)[0]
        found = [n for n, names in enumerate(LAYERS) if package in names]
    assert found, f"{module} stands in no layer: give it a place in this test"
    return found[0]


def imports(path: Path) -> set[str]:
    """Modules of Expunge that a file imports, wherever in the file, type-checking apart."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped and (node.module or "").startswith("expunge"):
            base = (node.module or "").removeprefix("expunge").removeprefix(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                path_of = SOURCE.joinpath(*whole.split("."))
                found.add(whole if path_of.with_suffix(".py").exists() else base)
    return found - {""}


def test_imports_run_one_way() -> None:
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if module.endswith("__init__") and module != "__init__":
            continue
        for other in imports(path):
            assert layer(other) <= layer(module), f"{module} imports {other}, which stands further down"


def test_methods_and_audits_do_not_import_each_other() -> None:
    for package in ("methods", "audits"):
        for path in (SOURCE / package).glob("[a-z]*.py"):
            others = {i for i in imports(path) if i.startswith((f"{package}.", "trainer")) and not i.endswith(".base")}
            assert not others, f"{path.name} imports {others}"


def test_the_report_knows_no_torch() -> None:
    code = "import sys, expunge.report; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def quickest(*command: str) -> float:
    """Seconds of processor time, the least of five: the clock on the wall would tell how busy the machine is."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


def test_start_up_is_quick() -> None:
    assert quickest(sys.executable, "-c", "import expunge") < 0.5
    assert quickest(sys.executable, "-m", "expunge", "--help") < 0.5


def test_help_names_every_command_with_its_whole_sentence() -> None:
    """In plain text: nothing is cut, and rich is not loaded for it."""
    code = """
import sys, expunge.cli
sys.argv = ["expunge", "--help"]
try:
    expunge.cli.main()
finally:
    print("rich" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    assert "Unlearn, audit, and write the model with its record, report and history." in said
    assert "..." not in said.split("Commands:")[1]
    assert said.endswith("False")


def test_public_names_are_sorted_documented_and_there() -> None:
    assert expunge.__all__ == sorted(expunge.__all__) == sorted(expunge._HOME)
    for name in expunge.__all__:
        assert (getattr(expunge, name).__doc__ or "").strip(), f"{name} has no docstring"
    assert dir(expunge) == expunge.__all__


def test_every_file_answers_one_question() -> None:
    for path in SOURCE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400, f"{path.name} has {len(lines)} lines: split it"
        assert lines, f"{path.name} is empty"
        assert lines[0].startswith('"""'), f"{path.name} does not say what it is for"
    assert len((SOURCE / "trainer.py").read_text(encoding="utf-8").splitlines()) <= 220
    assert not list(SOURCE.rglob("utils.py"))
