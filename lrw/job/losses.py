"""What is trained on: the labels of volumes, or of their voxels."""

import torch.nn.functional as F
from torch import Tensor

SMOOTHING = 0.05  # of the labels of volumes


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """logits [N, classes] and labels [N], or [N, classes, D, H, W] and [N, D, H, W]."""
    return class_loss(logits, labels) if labels.ndim == 1 else voxel_loss(logits, labels)


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels."""
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def voxel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, plus 1 - soft Dice of the classes after the first, over the batch.

    Source: Isensee et al., "nnU-Net", Nature Methods 18:203, 2021, whose loss is the sum of both.
    """
    shares = logits.softmax(1)[:, 1:]
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(shares.dtype)
    dims = (0, *range(2, logits.dim()))
    dice = (2 * (shares * truth).sum(dims) + 1) / ((shares + truth).sum(dims) + 1)
    return F.cross_entropy(logits, labels) + 1 - dice.mean()
