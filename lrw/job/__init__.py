"""The main job: train or load, convert, low-rank fine-tune, prune, retrain, compress, save, export, report."""

from lrw.job.config import JobConfig
from lrw.job.pipeline import resumed, run
from lrw.job.report import Report

__all__ = ["JobConfig", "Report", "resumed", "run"]
