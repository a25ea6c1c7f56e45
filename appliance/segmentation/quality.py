"""How sure the ensemble is of each structure, and which ones need a careful look."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoiQuality:
    """What is known about one structure of a draft.

    Attributes:
        name: of the ROI, as the manifest has it.
        fold_dice: mean Dice of all pairs of folds; None where there is only one.
        entropy: mean entropy of its voxels in nats.
        volume_cm3: its volume.
        flags: one sentence for each reason to look at it carefully; none where there is no reason.
    """

    name: str
    fold_dice: float | None
    entropy: float | None
    volume_cm3: float
    flags: tuple[str, ...] = ()
