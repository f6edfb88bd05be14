"""The dense network of a job: made as it is asked for, and held against the data before anything is trained."""

from typing import Any

import torch
from torch import Tensor, nn

from lrw import nets
from lrw.checkpoint import fill, read_state_dict
from lrw.data import Volumes
from lrw.job.config import JobConfig
from lrw.layers import copied
from lrw_kernels.untrusted import in_a_line


def dense(config: JobConfig, volumes: Volumes) -> nn.Module:
    """The network with the weights it starts from. Raises ValueError naming the argument, and what reading raises."""
    torch.manual_seed(config.seed)
    if nets.is_own(config.net):
        net, what = nets.own(config.net), config.net
    else:
        sizes: dict[str, Any] = {"in_channels": volumes.channels, "classes": len(volumes.classes)}
        net = nets.build(config.net, input_size=volumes.size, width=config.width, **sizes)
        what = f"{config.net} of width {config.width}"
    if config.weights is not None:
        fill(net, read_state_dict(config.weights), f"weights: {config.weights} does not fit {what}", config.weights)
    return net


def check_labels(net: nn.Module, name: str, volumes: Volumes) -> None:
    """Raise ValueError where `net` does not give what the data has labels of: a score for each class and volume, or for
    each class and voxel, of batches of any size."""
    classes, voxels = len(volumes.classes), list(volumes.size) if volumes.segmented else []
    for count, training in ((2, True), (2, False), (1, False)):  # some give other things while they are trained
        images, tried = next(volumes.batches("test", count))[0], copied(net).train(training)
        try:
            with torch.no_grad():
                scores: Any = tried(images)
        except Exception as error:  # of many classes: whatever a network of one's own raises
            reason = in_a_line(error) or type(error).__name__
            raise ValueError(f"net: {name} does not take samples {list(images.shape)} ({reason})") from error
        shape = list(scores.shape) if isinstance(scores, Tensor) else []
        if len(shape) < 2 or shape[1] < classes or [shape[0], *shape[2:]] != [len(images), *voxels]:
            given = shape or f"a {type(scores).__name__}"
            accepted = ", ".join(map(str, [len(images), f"{classes} or more", *voxels]))
            raise ValueError(f"net: {name} gives {given} for samples {list(images.shape)}; accepted is [{accepted}]")
