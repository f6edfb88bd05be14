"""Winograd layers as modules: trained in the domain, trained through a low-rank update, or compressed,
whole or in blocks of output channels.

All compute `domain_conv3d` with the weights their `weights()` returns; they differ in where those come from.
"""

from lrw.nn.compressed import CompressedConv3d
from lrw.nn.grouped import GroupedConv3d
from lrw.nn.layer import MovedReLU, Observer, WinogradLayer
from lrw.nn.low_rank import LowRankWinogradConv3d
from lrw.nn.winograd import WinogradConv3d

__all__ = [
    "CompressedConv3d",
    "GroupedConv3d",
    "LowRankWinogradConv3d",
    "MovedReLU",
    "Observer",
    "WinogradConv3d",
    "WinogradLayer",
]
