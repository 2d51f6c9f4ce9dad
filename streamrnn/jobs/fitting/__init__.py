"""Training a pipeline's model on its source: `streamrnn fit`.

- `staging`, `raw`   rows with their labels, sorted by stream, in mapped files
- `division`         which steps train and which validate; pieces that run side by side
- `samples`          windows that start from the initial state, of fits that carry no state
- `carried`          the states of lanes from window to window
- `window`           lanes x steps of staged rows
- `scaling`          means and deviations of features and target
- `learner`          what a window does to the weights; `training` has losses, optimizers, gradients
- `schedules`, `class_weights`   the learning rate over the training; weights of classes
- `course`           the loop of epochs; `standing`, `baseline`: what it counts
- `folder`           commits

A fit is a function of its rows, its config and its seed: no bit of a weight depends on threads,
record batches, the CPU, or where it was stopped and resumed.
"""

from streamrnn.jobs.fitting.baseline import Baselines, best_season, seasonal_forecasts, share_better
from streamrnn.jobs.fitting.class_weights import ClassWeights
from streamrnn.jobs.fitting.course import Course, FitPlan, FitProgress
from streamrnn.jobs.fitting.division import Division, DivisionRule, StepRuns, divide
from streamrnn.jobs.fitting.folder import FitCommit, FitFolder
from streamrnn.jobs.fitting.labels import WrongLabel, check_units, find_wrong_label
from streamrnn.jobs.fitting.learner import Learner
from streamrnn.jobs.fitting.samples import SampleRule
from streamrnn.jobs.fitting.scaling import (
    adapt_normalization,
    check_finite_scale,
    label_means,
    scale_of,
    split_off_scale,
    target_scale,
    with_scale,
)
from streamrnn.jobs.fitting.schedules import RateSchedule
from streamrnn.jobs.fitting.staging import Limit, Reader, Staged, stage
from streamrnn.jobs.fitting.standing import HistoryRow
from streamrnn.jobs.fitting.window import Scale

__all__ = [
    "Baselines",
    "ClassWeights",
    "Course",
    "Division",
    "DivisionRule",
    "FitCommit",
    "FitFolder",
    "FitPlan",
    "FitProgress",
    "HistoryRow",
    "Learner",
    "Limit",
    "RateSchedule",
    "Reader",
    "SampleRule",
    "Scale",
    "Staged",
    "StepRuns",
    "WrongLabel",
    "adapt_normalization",
    "best_season",
    "check_finite_scale",
    "check_units",
    "divide",
    "find_wrong_label",
    "label_means",
    "scale_of",
    "seasonal_forecasts",
    "share_better",
    "split_off_scale",
    "stage",
    "target_scale",
    "with_scale",
]
