"""Tensors out of files of others, and nothing else: whatever a file would like to have executed stays where it is.

A torch checkpoint is a zip archive around a pickle, and a pickle is a program. Only torch's own reader for weights
opens it (`weights_only=True`: tensors, numbers, texts, lists and dictionaries), with the few names of numpy that
checkpoints of segmentation networks hold. What else the pickle names is listed without being looked up, and refused.
"""

import pickle
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from appliance.errors import ModelRefused, Reason

MAX_FILE_BYTES = 8 * 2**30
"""The largest public models of this kind have 1.5 GB a fold, with the state of their optimiser."""
MAX_TENSORS = 20_000
MAX_VALUES = 2**31
"""Numbers in all tensors of a file together; views of one small storage can claim any number of them."""

_NUMPY = "numpy._core.multiarray"
_FORMER_NUMPY = "numpy.core.multiarray"
_DTYPES = ("Bool", "Int32", "Int64", "Float16", "Float32", "Float64", "Str")
_ZIP_MAGIC = b"PK\x03\x04"
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What torch and zipfile raise on bytes that make no sense to them."""


class _Placeholder:
    """Stands for a class of another project that a checkpoint names beside its weights; holds and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_checkpoint(path: Path, ignored: Collection[str] = ()) -> Mapping[str, Any]:
    """What a torch checkpoint (.pt, .pth, .ckpt, .bin) holds, without executing anything.

    Args:
        path: a file that `torch.save` of torch 1.6 or later wrote.
        ignored: packages whose classes a format is known to hold beside the weights; an empty object of our own takes
            the place of each, and they are never imported.

    Returns:
        Tensors on the CPU, mapped from the file where possible, among plain values.

    Raises:
        ModelRefused: MODEL_UNSAFE if reading it in full would execute code, and which; MODEL_INVALID if it is damaged,
            too large, TorchScript, or no dictionary.
    """
    _check_archive(path)
    allowed: list[Any] = _numpy_globals()
    try:
        with torch.serialization.safe_globals(allowed):
            named = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        beside = [name for name in named if name.split(".")[0] in ignored]
        if unsafe := [name for name in named if name not in beside]:
            raise _unsafe(path, f"would execute {_listed(unsafe)} when it is read")
        with torch.serialization.safe_globals([*allowed, *((_Placeholder, name) for name in beside)]):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(path, "cannot be read as tensors alone; it is damaged or would execute code") from error
    except _DAMAGED as error:
        raise invalid(path, "is damaged") from error
    if not isinstance(held, dict) or not all(isinstance(key, str) for key in held):
        raise invalid(path, "holds no dictionary of named values")
    _check_claims(_tensors_within(held), path)
    return held


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        ModelRefused: MODEL_INVALID if it is damaged, too large or something else.
    """
    _check_size(path)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, *_DAMAGED) as error:
        raise invalid(path, "is no safetensors file, or a damaged one") from error
    _check_claims(tensors.values(), path)
    return tensors


def finite(state: Mapping[str, Any], of: Path) -> dict[str, Tensor]:
    """The same weights, if every one of them is a tensor of finite numbers.

    Args:
        state: name -> tensor.
        of: the file that they are from, for the sentence.

    Raises:
        ModelRefused: MODEL_INVALID naming the first that is none.
    """
    if not state:
        raise invalid(of, "holds no weights")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
            raise invalid(of, f"holds no plain tensor under {str(name)[:80]!r}")
        if not bool(torch.isfinite(tensor).all()):
            raise invalid(of, f"holds weights that are no numbers (NaN or infinite) in {str(name)[:80]!r}")
    return dict(state)


def invalid(path: Path, what: str) -> ModelRefused:
    """A refusal of a file that cannot be used, as one sentence: "NAME WHAT; ..."."""
    return ModelRefused(Reason.MODEL_INVALID, f"{path.name} {what}; get the model again from its source")


def _unsafe(path: Path, what: str) -> ModelRefused:
    return ModelRefused(
        Reason.MODEL_UNSAFE, f"{path.name} {what}; ask its source for the weights alone (safetensors or ONNX)"
    )


def _numpy_globals() -> list[tuple[Any, str]]:
    """What a pickled number or array of numpy names, under the names of numpy 2 and 1."""
    names: list[tuple[Any, str]] = [(np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype")]
    names += [(getattr(np.dtypes, f"{kind}DType"), f"numpy.dtypes.{kind}DType") for kind in _DTYPES]
    makers: tuple[Any, ...] = (np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0])
    return names + [(maker, f"{room}.{maker.__name__}") for room in (_NUMPY, _FORMER_NUMPY) for maker in makers]


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise invalid(path, f"has {size / 2**30:.1f} GiB, {MAX_FILE_BYTES / 2**30:.0f} at most are read")


def _check_archive(path: Path) -> None:
    """A zip as torch writes it: stored and not compressed, each file once, every checksum right."""
    _check_size(path)
    with path.open("rb") as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            raise _unsafe(path, "is a bare pickle or no torch checkpoint (torch 1.6 or later)")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch compresses nothing: what is compressed here only serves to be larger than it looks.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise invalid(path, "holds compressed parts, which torch never writes")
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names) or len(names) > 2 * MAX_TENSORS:
                raise invalid(path, "holds parts twice, or too many")
            if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in names):
                raise invalid(path, "is TorchScript, not a checkpoint")
            damaged = archive.testzip()
    except _DAMAGED as error:
        raise invalid(path, "is damaged") from error
    if damaged is not None:
        raise invalid(path, f"is damaged (checksum of {damaged[-80:]})")


def _tensors_within(held: Any) -> Iterable[Tensor]:
    """Every tensor in nested dictionaries, lists and tuples."""
    waiting, seen = [held], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _check_claims(tensors: Iterable[Tensor], path: Path) -> None:
    values = 0
    for count, tensor in enumerate(tensors, start=1):
        values += tensor.numel()
        if count > MAX_TENSORS or values > MAX_VALUES:
            raise invalid(path, f"claims more than {MAX_TENSORS} tensors or {MAX_VALUES} values")


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
