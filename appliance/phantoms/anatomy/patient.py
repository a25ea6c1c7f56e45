"""Who the phantom is: size, sex, build and posture, drawn once and read by every organ."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

Sex: TypeAlias = Literal["male", "female"]
_Length = TypeVar("_Length", float, np.ndarray)


@dataclass(frozen=True, slots=True)
class Patient:
    """Measures that the organs share; lengths in mm, scales relative to an average adult."""

    sex: Sex
    scale: float
    width_scale: float
    hip_half_distance_mm: float
    fatness_mm: float
    bone_scale: float
    lordosis_mm: float
    sacral_tilt_deg: float
    liver_floor_mm: float

    @property
    def promontory_y_mm(self) -> float:
        """Where the top of the sacrum lies, front to back; it moves forward as the sacrum tilts."""
        return 62.0 + float(self._tilted(-40.0, 44.0)[0])

    def tilt_sacrum(self, y_mm: np.ndarray, z_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn points (y, z) of the upright sacrum about the sacroiliac joints."""
        y, z = self._tilted(y_mm - 62, z_mm - 60)
        return y + 62, z + 60

    def _tilted(self, y_mm: _Length, z_mm: _Length) -> tuple[_Length, _Length]:
        angle = np.deg2rad(self.sacral_tilt_deg)
        return y_mm * np.cos(angle) - z_mm * np.sin(angle), y_mm * np.sin(angle) + z_mm * np.cos(angle)

    @property
    def is_male(self) -> bool:
        """True for a phantom with a prostate."""
        return self.sex == "male"

    def spine_y_mm(self, z_mm: float) -> float:
        """Where the middle of the vertebral bodies lies, front to back, at a height above the hip joints."""
        phase = float(np.clip((z_mm - 92) / 205, 0, 1))
        curve: float = np.sin(np.pi * phase) ** 0.7
        return self.promontory_y_mm - self.lordosis_mm * curve


def draw_patient(rng: np.random.Generator, sex: Sex | None) -> Patient:
    """Draw a patient; `sex` None leaves it to chance (55 % men, as in a radiotherapy department's pelvis list)."""
    by_chance: Sex = "male" if rng.random() < 0.55 else "female"
    chosen = by_chance if sex is None else sex
    female = chosen == "female"
    scale = rng.uniform(0.9, 1.1)
    width_scale = scale * (1.04 if female else 1.0) * rng.uniform(0.95, 1.06)
    return Patient(
        sex=chosen,
        scale=scale,
        width_scale=width_scale,
        hip_half_distance_mm=88 * width_scale + rng.normal(0, 2),
        fatness_mm=float(np.clip(rng.gamma(2.2, 9.0), 4, 50)),
        bone_scale=scale * rng.uniform(0.96, 1.04) * (0.95 if female else 1.0),
        lordosis_mm=rng.uniform(10, 42),
        sacral_tilt_deg=float(np.clip(rng.normal(0, 5), -10, 8)),
        liver_floor_mm=rng.uniform(165, 215),
    )
