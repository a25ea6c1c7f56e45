"""What no line of this house may do, read from its source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "appliance").rglob("*.py"), *(ROOT / "models").rglob("*.py")])
DATA_PATH = ("appliance/intake/", "appliance/delivery/", "appliance/spool/", "appliance/casework/")
OURSELVES = {
    "appliance/casework/bench_process.py",  # the bench of a worker, under limits
    "appliance/intake/limited_reading.py",  # the reader of headers, under limits
}
"""On the data path nothing is started but this appliance's own Python, with arguments that no peer has a word in."""

START_PROGRAMS = OURSELVES | {
    "appliance/dicom/standard_check.py",  # dciodvfy, on our own result
    "appliance/importing/importing.py",  # the confined reader of foreign models
    "appliance/records/dumping.py",  # pg_dump, when an operator makes a backup
    "appliance/running/demo/box.py",
    "appliance/running/supervisor.py",
}
"""The whole list of files that start another program."""

PROGRAM_STARTERS = {"subprocess", "pty", "pexpect", "sh"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput"}
EXECUTING = ("exec", "spawn", "posix_spawn")


@cache
def _trees() -> list[tuple[str, ast.Module]]:
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in SOURCES]


def _imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def _calls() -> Iterator[tuple[str, ast.Call, str]]:
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield name, node, ast.unparse(node.func)


def test_no_call_goes_through_a_shell() -> None:
    through_shell = [
        f"{name}:{call.lineno}"
        for name, call, function in _calls()
        for keyword in call.keywords
        if (keyword.arg == "shell" and ast.unparse(keyword.value) != "False")
        or (function.rpartition(".")[0] in {"os", "subprocess"} and function.rpartition(".")[2] in SHELLS)
    ]
    assert through_shell == []
    assert not [name for name, _, function in _calls() if function in {"os.system", "os.popen"}]


def test_only_the_known_files_start_a_program_and_on_the_data_path_only_ourselves() -> None:
    starters = {name for name, tree in _trees() if PROGRAM_STARTERS & _imported(tree)}
    assert starters == START_PROGRAMS
    assert {name for name in starters if name.startswith(DATA_PATH)} == OURSELVES
    assert not starters & {
        f"appliance/intake/{name}.py" for name in ("listener", "acceptor", "children", "association")
    }
    executing = {
        name
        for name, _, function in _calls()
        if function.startswith("os.") and function.removeprefix("os.").startswith(EXECUTING)
    }
    assert executing == set()


def test_certificates_are_always_checked_and_old_protocols_never_allowed() -> None:
    """In product code; a test may well be a bad client."""
    forbidden = {
        "CERT_NONE",
        "CERT_OPTIONAL",
        "TLSv1",
        "TLSv1_1",
        "SSLv3",
        "PROTOCOL_TLS",
        "_create_unverified_context",
    }
    used = {
        f"{name}: {node.attr}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in forbidden
    }
    assert used == set()
    makers = {name for name, _, function in _calls() if function.endswith(("SSLContext", "create_default_context"))}
    assert makers <= {"appliance/settings/tls.py", "appliance/audit/syslog.py"}
    assert "appliance/settings/tls.py" in makers


def test_no_file_is_named_after_what_a_peer_sent() -> None:
    """Paths on the data path are never joined with a UID, an AE title or a patient's element."""
    peers_words = {"sop_instance_uid", "calling_ae", "called_ae", "source_ae", "patient_id", "series_instance_uid"}
    joined = {
        f"{name}:{node.lineno}"
        for name, tree in _trees()
        if name.startswith(("appliance/intake/", "appliance/spool/"))
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        for word in ast.walk(node.right)
        if (isinstance(word, ast.Name) and word.id in peers_words)
        or (isinstance(word, ast.Attribute) and word.attr in peers_words)
    }
    assert joined == set()
