"""TorchScript: a program in torch's own small language. It is run in the confined process alone, once, to export it.

Its interpreter knows no Python and no system, but it has operations that write and map files (`torch.save`,
`torch.from_file`), and a script may run some as it is loaded. So its code is parsed first and refused if it names one;
what is kept in the end is ONNX.
"""

import ast
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from appliance.errors import ModelRefused, Reason
from appliance.importing.converted import Converted, ImportRequest, Member
from appliance.importing.tensors import MAX_FILE_BYTES, finite, invalid

TITLE = "TorchScript"

_HARMLESS = ("__torch__", "torch._utils", "torch.jit._pickle", "collections")
"""Where the names lie that torch's own writer puts into a TorchScript archive."""
_PICKLES = ("data.pkl", "constants.pkl")
REACHING_OUT = frozenset(
    {"from_file", "load_tensor", "save", "PythonOp", "IgnoredPythonOp", "rpc_async", "rpc_remote", "rpc_sync"}
)
"""Operations of TorchScript that leave their own tensors: files, Python, other machines."""
_NAMESPACES = {"aten", "prim"}
"""Of operations as `ops.NAMESPACE.NAME`; the others belong to extensions."""
_MAX_CODE_BYTES = 2**24


def recognises(path: Path) -> bool:
    """A zip archive with the code and constants of TorchScript."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def read(path: Path, request: ImportRequest) -> Converted:
    """Load it for one tile of the request.

    Raises:
        ModelRefused: MODEL_UNSAFE if its code reaches for files or other programs, or a pickle in it names anything
            that TorchScript does not; MODEL_INVALID if it is damaged or no network.
    """
    del request
    _check_archive(path)
    try:
        load: Any = torch.jit.load
        network = load(str(path), map_location="cpu").eval()
        finite(network.state_dict(), path)
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise invalid(path, f"is TorchScript that torch cannot load ({first[:160]})") from error
    note = "TorchScript holds no preprocessing: spacing, window and classes are those that the import was told."
    return Converted({}, (Member(network, path.name),), (note,))


def _check_archive(path: Path) -> None:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise invalid(path, "is too large")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
            if len(set(names)) < len(names) or size > MAX_FILE_BYTES:
                raise invalid(path, "holds parts twice, or too many")
            if (damaged := archive.testzip()) is not None:
                raise invalid(path, f"is damaged (checksum of {damaged[-80:]})")
            foreign = {
                named
                for name in names
                if name.rsplit("/", 1)[-1] in _PICKLES
                for named in _names_in(archive.read(name))
                if not _is_harmless(*named)
            }
            foreign |= _operations_reaching_out(archive, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, IndexError) as error:
        raise invalid(path, "is damaged") from error
    if foreign:
        shown = ", ".join(sorted(f"{module}.{name}" for module, name in foreign))[:160]
        raise ModelRefused(
            Reason.MODEL_UNSAFE, f"{path.name} wants to use {shown}, which no network needs; nothing was imported"
        )


def _operations_reaching_out(archive: zipfile.ZipFile, path: Path) -> set[tuple[str, str]]:
    """(namespace, operation) of all that the code names and no network needs."""
    code = [entry for entry in archive.infolist() if entry.filename.endswith(".py")]
    if not code or sum(entry.file_size for entry in code) > _MAX_CODE_BYTES:
        raise invalid(path, "holds no code, or too much")
    found: set[tuple[str, str]] = set()
    for entry in code:
        try:
            tree = ast.parse(archive.read(entry))  # its grammar is a part of Python's
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise invalid(path, "holds code that cannot be looked through") from error
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Attribute(value=ast.Name(id="ops"), attr=namespace), attr=name):
                    if namespace not in _NAMESPACES or name in REACHING_OUT:
                        found.add((f"ops.{namespace}", name))
                case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)):
                    if name in REACHING_OUT:
                        found.add(("torch", name))
    return found


def _names_in(content: bytes) -> set[tuple[str, str]]:
    """Every (module, name) that a pickle asks for, read without running it."""
    found: set[tuple[str, str]] = set()
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            found.add((module, name))
        elif opcode.name == "STACK_GLOBAL":
            found.add((texts[-2] if len(texts) > 1 else "?", texts[-1] if texts else "?"))
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            found.add(("copyreg", str(argument)))
        elif isinstance(argument, str):
            texts.append(argument)
    return found


def _is_harmless(module: str, name: str) -> bool:
    if module == "torch":
        return name.endswith("Storage")
    return module.split(".", maxsplit=1)[0] == "__torch__" or module in _HARMLESS
