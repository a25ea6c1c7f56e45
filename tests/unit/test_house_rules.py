"""What the linters cannot say about the code of this house."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import Reason

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "appliance").rglob("*.py"), *(ROOT / "models").rglob("*.py")])
MAY_CATCH_ANYTHING = {"appliance/casework/attending.py"}
"""The boundaries where whatever happens to one case must not reach the next."""
NOBODY_KNOWS_WHAT_IS_IN = {"utils", "util", "helper", "helpers", "common", "misc", "manager", "processor", "handler"}
_WITH_HIGHDICOM = ("segment_elements", "segmentation_object", "segmentation_check")


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def test_no_file_is_longer_than_one_sitting() -> None:
    long = {path.relative_to(ROOT).as_posix(): path.read_text().count("\n") for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_no_function_is_longer_than_a_page() -> None:
    functions = (
        (f"{name}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "migrations" not in name
    )
    assert [place for place, lines in functions if lines > 60] == []


def test_anything_is_caught_only_at_the_known_boundaries() -> None:
    broad = {
        name
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    }
    assert broad == MAY_CATCH_ANYTHING


def test_only_the_clock_reads_a_clock() -> None:
    calls = {
        name
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"now", "utcnow", "today", "time_ns", "monotonic", "perf_counter"}
        and isinstance(node.value, ast.Name)
        and node.value.id in {"datetime", "date", "time"}
    }
    allowed = {"appliance/clock.py"}
    training = {name for name in calls if name.startswith("appliance/training/")}
    assert calls - training == allowed


def test_only_the_settings_and_the_package_itself_touch_the_environment() -> None:
    readers = {
        name
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }
    assert {name for name in readers if not name.startswith("appliance/settings/")} <= {
        "appliance/__init__.py",
        "appliance/failpoint.py",
    }


def test_nothing_is_ever_unpickled_or_evaluated() -> None:
    calls = [
        (f"{name}:{node.lineno}", ast.unparse(node.func), {part.arg: ast.unparse(part.value) for part in node.keywords})
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    loads = [(place, options) for place, function, options in calls if function == "torch.load"]
    assert loads
    assert [place for place, options in loads if options.get("weights_only") != "True"] == []
    executing = {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "yaml.unsafe_load"}
    assert [place for place, function, _ in calls if function in executing] == []
    assert [place for place, _, options in calls if options.get("allow_pickle", "False") != "False"] == []


def test_rooms_are_named_for_what_is_in_them() -> None:
    assert [path for path in SOURCES if path.stem in NOBODY_KNOWS_WHAT_IS_IN] == []


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_given_somewhere(reason: Reason) -> None:
    users = [path for path in SOURCES if path.name != "errors.py" and f"Reason.{reason.name}" in path.read_text()]
    assert users, f"{reason} is in the list of reasons, but nothing is ever refused for it"


def test_what_loads_highdicom_is_itself_loaded_only_where_a_segmentation_is_written() -> None:
    rooms = {f"appliance.dicom.{name}" for name in _WITH_HIGHDICOM}
    loading = {name for name, tree in _trees() if {"highdicom", *rooms} & {*_packages_loaded_with(tree)}}
    assert loading <= {f"{room.replace('.', '/')}.py" for room in rooms}
    assert "appliance/dicom/segment_elements.py" in loading


def _packages_loaded_with(tree: ast.Module) -> Iterator[str]:
    """What a module imports as it is loaded itself, and not only once a function of it runs: modules and packages."""
    for node in tree.body:
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            yield from (module, module.partition(".")[0])


def test_onnx_runtime_is_told_to_report_nothing_before_anything_can_load_it() -> None:
    code = "import os, sys; import appliance; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
