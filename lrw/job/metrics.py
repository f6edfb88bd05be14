"""How well a network does: of volumes that it names, and of voxels that it labels."""

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrw.data import Volumes
from lrw.layers import evaluating

AT_ONCE = 1 << 18  # voxels that are looked at in one pass, of at least one sample
MOST_AT_ONCE = 128  # samples


@dataclass(frozen=True)
class Metrics:
    """How well a network does on one split: share of the labels that it finds, cross-entropy; `auc` of volumes of two
    classes, both present; `dice` where voxels are labelled."""

    accuracy: float
    loss: float
    auc: float | None
    dice: float | None

    @property
    def words(self) -> str:
        """In a few words."""
        if self.dice is not None:
            return f"Dice {self.dice:.3f}"
        return f"accuracy {self.accuracy:.3f}{'' if self.auc is None else f', AUC {self.auc:.3f}'}"


def evaluate(net: nn.Module, data: Volumes, split: str) -> Metrics:
    """What `net` makes of a split; of each sample the mean over its voxels counts."""
    batch = max(1, min(MOST_AT_ONCE, AT_ONCE // prod(data.size)))
    found, margins = [], []
    with torch.no_grad(), evaluating(net):
        for images, labels in data.batches(split, batch):
            logits = net(images)
            right, loss = logits.argmax(1) == labels, F.cross_entropy(logits, labels, reduction="none")
            dice = sample_dice(logits, labels) if data.segmented else torch.zeros(len(labels))
            found.append(torch.stack([right.reshape(len(labels), -1).float().mean(1),
                                      loss.reshape(len(labels), -1).mean(1), dice]))  # fmt: skip
            margins.append(logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 and not data.segmented else labels[:0])
    accuracy, loss, dice = torch.cat(found, 1).double().mean(1).tolist()
    auc = _auc(torch.cat(margins), data.split(split).labels)
    return Metrics(accuracy, loss, auc, dice if data.segmented else None)


def sample_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """[N]: of each sample, mean over the classes after the first that are found or there; 1 where there are none.

    logits [N, classes, D, H, W], labels [N, D, H, W]. Source: Dice, Ecology 26:297, 1945.
    """
    found, values = logits.argmax(1), []
    for label in range(1, logits.shape[1]):
        ours, theirs = ((x == label).flatten(1).sum(1) for x in (found, labels))
        both = ((found == label) & (labels == label)).flatten(1).sum(1)
        values.append(2 * both / (ours + theirs))  # not a number where there are none of either
    return torch.stack(values).nanmean(0).nan_to_num(nan=1.0)


def _auc(score: Tensor, label: Tensor) -> float | None:
    if len(score) == 0 or len(label.unique()) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label.numpy(), score.numpy()))
