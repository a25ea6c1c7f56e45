"""What runs a network: a library in one version, on one device, in one precision."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["float32", "float16", "bfloat16"]


LIBRARIES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch", "tensorrt": "TensorRT"}
"""Names in the settings, and what people call them."""


class EngineUnusable(Exception):
    """This engine cannot run this network here; another one may. The message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One way of running a network.

    Attributes:
        name: "onnxruntime", "openvino", "torch" or "tensorrt", as the settings have it.
        version: of the library.
        device: "cpu", or "cuda:0" and so on.
        device_name: what the device calls itself: two boxes with other processors are not alike.
        precision: what it computes in.
    """

    name: str
    version: str
    device: str = "cpu"
    device_name: str = "processor"
    precision: Precision = "float32"

    @property
    def words(self) -> str:
        """Say it in words, such as "ONNX Runtime on the CPU"."""
        library = LIBRARIES.get(self.name, self.name)
        place = "the CPU" if self.is_on_host else f"the GPU ({self.device_name}, {self.device})"
        return f"{library} on {place}" + ("" if self.precision == "float32" else f" in {self.precision}")

    @property
    def is_on_host(self) -> bool:
        """Whether its arrays are numpy's."""
        return self.device == "cpu"

    @property
    def device_number(self) -> int:
        """Which of several GPUs."""
        return 0 if self.is_on_host else int(self.device.partition(":")[2] or 0)

    @property
    def key(self) -> str:
        """What a measurement of it is kept under: it holds for this version on this device alone."""
        return f"{self.name} {self.version}, {self.device} ({self.device_name}), {self.precision}"
