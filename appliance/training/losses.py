"""The loss: weighted cross-entropy plus soft Dice over the classes that the tile holds."""

import torch
from torch import Tensor
from torch.nn import functional

_PRESENT_VOXELS = 20
"""A class with fewer voxels in a tile does not count for Dice, or the network would learn never to draw it."""
_SMOOTH_VOXELS = 50.0
"""Added to both sides of the Dice fraction, so that a handful of voxels does not swing the loss."""


def segmentation_loss(logits: Tensor, classes: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy + 1 - mean Dice; logits (B, K, Z, Y, X) float32, classes (B, Z, Y, X) int64, weights (K,)."""
    count = logits.shape[1]
    log_probability = functional.log_softmax(logits, 1)
    cross_entropy = functional.nll_loss(log_probability, classes, weight=class_weights)
    probability = log_probability.exp().flatten(2)  # (B, K, N)
    target = classes.flatten(1)  # (B, N)
    hit = probability.gather(1, target[:, None])[:, 0]  # (B, N)
    overlap = torch.zeros(len(target), count).scatter_add(1, target, hit)
    size = torch.zeros(len(target), count).scatter_add(1, target, torch.ones_like(hit))
    dice = (2 * overlap + _SMOOTH_VOXELS) / (probability.sum(2) + size + _SMOOTH_VOXELS)
    present = (size > _PRESENT_VOXELS).float()
    mean_dice = (dice * present).sum() / present.sum().clamp(min=1)
    loss: Tensor = cross_entropy + 1 - mean_dice
    return loss
