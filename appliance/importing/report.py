"""What an import did, as values that are kept beside the package as `import_report.json`."""

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MemberReport(_Part):
    """One network of the ensemble, and how far it answers as its original does.

    Attributes:
        file: the ONNX in the package.
        tensors: the safetensors in the package, where it has them.
        came_from: file in the source.
        original: what the ONNX was compared with.
        tiles: how many tiles both were asked for.
        largest_logit_difference: over all of them.
        changed_labels: share of voxels with another likeliest class.
    """

    file: str
    tensors: str | None
    came_from: str
    original: str
    tiles: int
    largest_logit_difference: float
    changed_labels: float


class ImportReport(_Part):
    """How a foreign model became a package.

    Attributes:
        package: its name.
        version: its version.
        format: what the source is, in words.
        source: its name; no folders.
        source_sha256: file in the source -> digest, of all that was read.
        members: in the manifest's order.
        notes: what was assumed, left out, or is worth knowing.
        tools: program -> version.
        confinement: what the conversion was kept from, and what it could not be kept from here.
    """

    package: str
    version: str
    format: str
    source: str
    source_sha256: dict[str, str]
    members: tuple[MemberReport, ...]
    notes: tuple[str, ...]
    tools: dict[str, str]
    confinement: tuple[str, ...]
