"""The maps that every organ is painted on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.phantoms.shapes import Floats, Mask, Region
from appliance.phantoms.tissues import Structure, Tissue


@dataclass(frozen=True, slots=True)
class Canvas:
    """Maps (z, y, x) on the anatomy grid: `tissue` and `structure` are painted over, the rest says where to paint."""

    tissue: npt.NDArray[np.uint8]
    structure: npt.NDArray[np.uint8]
    body: Mask
    depth_mm: Floats
    """Distance to the skin."""
    fat_mm: Floats
    """Thickness of the subcutaneous fat above each voxel."""
    inner: Mask
    """Everything deep to the subcutaneous fat."""
    cavity: Mask
    """The abdominal and pelvic cavity inside the muscular wall."""

    def fill(self, where: Mask, tissue: Tissue, structure: Structure | None = None) -> None:
        """Paint a grid-sized mask."""
        self.tissue[where] = tissue
        if structure is not None:
            self.structure[where] = structure

    def paint(self, region: Region, tissue: Tissue, within: Mask, structure: Structure | None = None) -> None:
        """Paint a region, only where `within` is true."""
        region.paint(self.tissue, tissue, within)
        if structure is not None:
            region.paint(self.structure, structure, within)
