"""Knowledge distillation: a pruned network learns from the dense one it came from."""

import torch.nn.functional as F
from torch import Tensor

from lrw import checks
from lrw.typed import typed

IGNORED = -100  # torch's label for what does not count


@typed
def distillation_loss(
    logits: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    weight: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - weight) cross-entropy with `labels` + weight T^2 KL(teacher || network), both softened by T = `temperature`.

    logits and teacher [N, classes, ...], labels [N, ...], of which -100 are left out of both parts, as cross-entropy
    does. No gradient goes to the teacher. Raises ValueError for shapes that differ, labels of other numbers than int64,
    a weight or smoothing outside 0..1 and a temperature of 0 or below. Source: Hinton, Vinyals, Dean, arXiv 1503.02531;
    defaults are ours.
    """
    checks.check_distillation(weight, temperature, label_smoothing)
    if logits.shape != teacher.shape:
        raise ValueError(f"teacher: shape {list(teacher.shape)}; accepted is that of the logits, {list(logits.shape)}")
    checks.check_labels(labels, logits)
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    student, target = ((x / temperature).log_softmax(1) for x in (logits, teacher.detach()))
    soft = F.kl_div(student, target, reduction="none", log_target=True).sum(1)[labels != IGNORED].mean()
    return (1 - weight) * hard + weight * temperature**2 * soft
