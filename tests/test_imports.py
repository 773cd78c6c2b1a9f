"""Who may import whom. A new module gets a place in one of the tables below."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "robust_saliency"
ROOT = Path(__file__).parent.parent / PACKAGE

FLOOR = {"types", "checks", "randomness", "blur", "rows", "samples"}
MIDDLE = {
    "projections", "threat", "losses", "baselines", "schedules", "ensembles", "ranks", "map_distances", "inside",
}  # fmt: skip
SIBLINGS = {"attacks", "saliency", "metrics", "neurons"}
PURE = FLOOR | MIDDLE | SIBLINGS | {"objectives", "map_attacks"}
EDGES = {
    "models", "data", "optimizer", "sharding", "checkpoint", "records", "workdirs", "environment", "progress",
    "disk", "preemption", "processes",
}  # fmt: skip
BUILD = PURE | EDGES | {"config", "config_fields", "config_sections", "initialise", "trainable"}

# module -> the modules of the package that it may import
MAY_IMPORT = {
    "__init__": set(),
    "types": set(),
    "checks": {"types"},
    "randomness": {"types", "checks"},
    "blur": {"types"},
    "rows": {"types"},
    "samples": {"types"},
    "memory": set(),
    **dict.fromkeys(MIDDLE, FLOOR),
    "threat": FLOOR | {"projections"},
    "map_distances": FLOOR | {"ranks"},
    **dict.fromkeys(SIBLINGS, FLOOR | MIDDLE),
    "objectives": FLOOR | MIDDLE | SIBLINGS | {"trainable"},
    "map_attacks": FLOOR | MIDDLE | SIBLINGS,
    **dict.fromkeys(EDGES, FLOOR),
    "progress": {"processes"},
    "sharding": {"processes", "samples"},
    "optimizer": FLOOR | {"trainable"},
    "trainable": set(),
    "averaging": {"types"},
    "stopping": set(),
    "phases": {"checks", "config_fields", "workdirs"},
    "csv_columns": set(),
    "flaws": set(),
    "records": {"csv_columns"},
    "workdirs": {"processes", "records"},
    "checkpoint_reading": set(),
    "checkpoint": FLOOR | {"checkpoint_reading", "disk"},
    "statistics": set(),
    "stated": set(),
    "study_claims": {"checks", "config_fields", "evaluate_blind", "stated"},
    "report": {"flaws", "statistics", "records", "stated", "workdirs"},
    "microbatches": {"types"},
    "supervision": {"preemption", "processes"},
    "config_fields": PURE | {"models"},
    "config_wrappers": PURE | {"config_fields"},
    "config_file": {"config_fields"},
    "config_sections": PURE,
    "config": PURE | EDGES | {"config_fields", "config_sections", "config_wrappers", "phases"},
    "descriptions": PURE | {"config_fields", "config"},
    "initialise": PURE | EDGES | {"config", "config_fields", "trainable"},
    "train_step": BUILD | {"averaging", "microbatches"},
    "epoch_end": BUILD | {"train_step", "stopping"},
    "evaluate_blind": BUILD,
    "evaluate_programs": BUILD | {"evaluate_blind"},
    "evaluate_randomisation": BUILD | {"evaluate_programs", "descriptions"},
    "train": BUILD | {"train_step", "epoch_end"},
    "survivors": FLOOR | {"losses", "attacks", "data", "sharding", "records", "progress"},
    "robustness_checks": set(),
    "robustness_programs": BUILD | {"survivors"},
    "robustness_facts": BUILD | {"robustness_checks", "robustness_programs", "survivors"},
    "robustness": BUILD | {"robustness_checks", "robustness_facts", "survivors", "report"},
    "transfer": FLOOR | {"metrics", "models", "sharding", "progress"},
    "transfer_checks": {"robustness_checks"},
    "evaluate": BUILD
    | {"evaluate_blind", "evaluate_programs", "evaluate_randomisation", "descriptions", "flaws", "survivors"},
    "timing": set(),
    "neuron_programs": BUILD,
    "neuron_subject": BUILD | {"neuron_programs"},
    "neuron_adversaries": BUILD | {"neuron_subject"},
    "neuron_overlaps": BUILD | {"neuron_subject"},
    "neuron_facts": BUILD | {"neuron_subject", "neuron_adversaries", "neuron_overlaps"},
    "neuron_units": BUILD | {"neuron_subject"},
    "neuron_tracing": BUILD | {"neuron_subject"},
    "neuron_ablation": BUILD | {"neuron_subject", "neuron_tracing"},
    "neuron_summary": BUILD | {"neuron_subject", "neuron_adversaries", "neuron_units"},
    "neuron_pictures": BUILD | {"neuron_subject", "neuron_programs", "neuron_tracing", "neuron_units"},
    "neuron_report": BUILD
    | {
        "neuron_ablation",
        "neuron_adversaries",
        "neuron_subject",
        "neuron_facts",
        "neuron_pictures",
        "neuron_summary",
        "neuron_tracing",
        "neuron_units",
    }
    | {"descriptions", "report"},
    "benchmark_training": BUILD | {"config_wrappers", "timing", "train_step"},
    "benchmark_attacks": BUILD | {"timing"},
    "benchmark_maps": BUILD | {"timing"},
    "benchmark_plot": set(),
    "benchmark": BUILD | {"benchmark_attacks", "benchmark_maps", "benchmark_plot", "benchmark_training"},
    "explain": BUILD | {"report"},
    "study": BUILD | {"train", "evaluate", "benchmark", "report", "stated", "study_claims"},
    "study_runs": BUILD | {"study"},
    "study_neurons": BUILD | {"study_runs", "neuron_report", "report"},
    "retraining": BUILD | {"train", "evaluate_programs"},
    "roar_images": BUILD | {"evaluate_blind", "evaluate_programs"},
    "roar": BUILD
    | {
        "train",
        "descriptions",
        "retraining",
        "roar_images",
        "statistics",
        "study",
        "study_claims",
        "study_runs",
        "report",
    },
    "study_robustness": BUILD
    | {"study_runs", "robustness", "robustness_facts", "survivors", "transfer", "transfer_checks", "report"},
}

STANDARD_IN_PURE = {
    "collections",
    "dataclasses",
    "difflib",
    "functools",
    "importlib",
    "inspect",
    "itertools",
    "math",
    "re",
    "types",
    "typing",
    "zlib",
}
OUTSIDE_IN_PURE = ("jax", "numpy", "chex", "optax")
# module -> all that it may import from outside the standard library
ONLY = {
    "statistics": {"numpy", "scipy"},
    "records": {"numpy"},
    "robustness_checks": {"numpy"},
    "transfer_checks": {"numpy"},
    "stopping": set(),
    "csv_columns": {"numpy"},
    "flaws": {"numpy"},
    "report": {"numpy", "matplotlib", "jinja2", "PIL", "pyarrow"},
}
# what lies outside -> the modules that alone may import it
RESERVED = {
    "flax": {"models"},
    "orbax": {"checkpoint", "checkpoint_reading"},
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "optax": {"optimizer", "train_step", "trainable", *PURE},
    "ml_collections": set(),
    "absl": set(),
    "launch": set(),
    "configs": set(),
    "tensorflow": set(),
    "torch": set(),
}


@functools.cache
def trees():
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def module_of(path):
    return path.parts[0].removesuffix(".py")


def imports_of(tree):
    """Dotted names of all imports, those inside functions too; ``from a.b import c`` is ``a.b.c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports():
    """(file, module, dotted name) of every import in the package."""
    return [(str(path), module_of(path), name) for path, tree in trees().items() for name in imports_of(tree)]


def outside():
    return [row for row in imports() if row[2].split(".")[0] not in {PACKAGE, *sys.stdlib_module_names}]


def test_every_module_has_a_place_in_the_table():
    assert {module_of(path) for path in trees()} <= set(MAY_IMPORT)
    assert "attacks" in {module_of(path) for path in trees()}


def test_modules_import_only_what_lies_below_them():
    inside = [(file, module, name.split(".")[1]) for file, module, name in imports() if name.startswith(PACKAGE + ".")]
    assert len(inside) > 50
    assert [row for row in inside if row[2] != row[1] and row[2] not in MAY_IMPORT[row[1]]] == []


def test_the_table_has_no_circle():
    done = set()
    while ready := {m for m, below in MAY_IMPORT.items() if m not in done and below - {m} <= done}:
        done |= ready
    assert set(MAY_IMPORT) == done


def test_the_pure_layer_imports_only_jax_and_numpy():
    assert [
        row
        for row in outside()
        if row[1] in PURE and not f"{row[2]}.".startswith(tuple(f"{n}." for n in OUTSIDE_IN_PURE))
    ] == []


@pytest.mark.parametrize("module", ONLY)
def test_modules_without_jax(module):
    assert [row for row in outside() if row[1] == module and row[2].split(".")[0] not in ONLY[module]] == []


@pytest.mark.parametrize("library", RESERVED)
def test_each_library_is_imported_where_it_belongs(library):
    assert [row for row in imports() if row[2].split(".")[0] == library and row[1] not in RESERVED[library]] == []


def test_the_pure_layer_has_no_effects():
    """No jit, no files, no output, no clock, no global state."""
    found = []
    for path, tree in trees().items():
        if module_of(path) not in PURE:
            continue
        for node in ast.walk(tree):
            name = getattr(node, "attr", getattr(node, "id", None))
            if name in {"jit", "pjit", "pmap", "io_callback", "open", "print", "environ", "PRNGKey"}:
                found.append((str(path), node.lineno, name))
            if isinstance(node, ast.Global | ast.Nonlocal):
                found.append((str(path), node.lineno, "global"))
        standard = {name.split(".")[0] for name in imports_of(tree)} & set(sys.stdlib_module_names)
        found += [(str(path), name) for name in standard - STANDARD_IN_PURE]
    assert found == []


def loaded_after(modules):
    """The top-level names in ``sys.modules`` of a fresh process that imported ``modules``."""
    code = f"import sys; {'; '.join(f'import {m}' for m in modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_pure_layer_loads_no_edge():
    present = sorted({module_of(path) for path in trees()} & PURE)
    loaded = loaded_after([f"{PACKAGE}.{module}" for module in present])
    assert {"jax", PACKAGE} <= loaded
    # absl comes with optax; that no module here imports it by itself is checked above.
    assert loaded & {"flax", "orbax", "grain", "tensorflow_datasets", "ml_collections", "tensorflow"} == set()


def test_the_package_the_statistics_and_the_report_load_no_jax():
    present = sorted({module_of(path) for path in trees()} & {"statistics", "report", "records"})
    loaded = loaded_after([PACKAGE, *(f"{PACKAGE}.{module}" for module in present)])
    assert PACKAGE in loaded
    assert loaded & {"jax", "jaxlib", "flax", "orbax"} == set()
