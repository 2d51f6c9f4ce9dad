"""Training a pipeline's model on its source: `streamrnn fit`.

- `staging`          rows with their labels, sorted by stream, in mapped files
- `division`         which steps train and which validate; pieces that run side by side, or, in fits
  that carry no state, windows that start from the initial state; lanes x steps of staged rows
- `learner`          what a window does to the weights and to the states of its lanes, and which
  labels a loss cannot use; `training` has losses, optimizers, gradients
- `fit_loop`         the epochs, for the loop in `training`, and the learning rate; a test of rates
- `baseline`         forecasts without a model, which the outputs are compared with; calibration
- `commit`           what is committed, and where
- `request`, `plan`   what a fit is asked for, reads, and trains, checked before any row is read;
  means and deviations of features and target
- `job`, `seeds`       one fit, or several, in processes of their own
- `summary`            options and result

A fit is a function of its rows, its config and its seed: no bit of a weight depends on threads,
record batches or the CPU, nor on where the fit was stopped and resumed.
"""

from streamrnn.jobs.fitting.baseline import share_better
from streamrnn.jobs.fitting.commit import HISTORY_FILE, FitCommit, FitFolder, FitRecord
from streamrnn.jobs.fitting.fit_loop import FitProgress
from streamrnn.jobs.fitting.request import load_untrained
from streamrnn.jobs.fitting.seeds import fit_job
from streamrnn.jobs.fitting.summary import FitOptions, FitSummary
