"""Search the size and the learning rate of the weather model, with Optuna.

    pip install optuna
    python pipelines/weather/search.py                # 12 trials
    python pipelines/weather/search.py --trials 40

A trial is a fit of weather.toml with other values of its keys, judged by September's loss. It is
given up when it is worse than most trials were at the same epoch. Each has a model file of its own.
A search that was stopped resumes with the same command, as finished trials are in search.db.
"""

import argparse
import threading
from collections.abc import Callable
from pathlib import Path

import optuna

from streamrnn import Pipeline
from streamrnn.pipeline import FitProgress

HERE = Path(__file__).parent
OUT = Path("out/search")


def fit(trial: optuna.Trial) -> float:
    """Return the validation loss of the best epoch."""
    units = trial.suggest_categorical("units", [8, 16, 24, 32])
    rate = trial.suggest_float("learning_rate", 1e-3, 2e-2, log=True)
    path = OUT / f"trial-{trial.number}.safetensors"
    pipeline = Pipeline.from_toml(
        HERE.parent / "weather.toml",
        [
            f"model.path={path}",
            f'model.layers=[{{type="Normalization"}}, {{type="GRU", units={units}}}, '
            '{type="Dense", units=1}]',
            f'train.optimizer={{name="adam", learning_rate={rate}}}',
            "train.epochs=20",
        ],
    )
    stop = threading.Event()
    summary = pipeline.fit(full_refresh=True, stop=stop, progress=prune(trial, stop))
    if summary.interrupted:
        raise optuna.TrialPruned
    return float(summary.best["val_loss"])


def prune(trial: optuna.Trial, stop: threading.Event) -> Callable[[FitProgress], None]:
    """Make a callback that stops a fit which is worse than most."""

    def report(progress: FitProgress) -> None:
        if progress.message and "val_loss" in progress.values:
            trial.report(progress.values["val_loss"], progress.epoch)
            if trial.should_prune():
                stop.set()

    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Search a better weather model.")
    parser.add_argument("--trials", type=int, default=12)
    trials = parser.parse_args().trials
    OUT.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{OUT}/search.db",
        study_name="weather",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=5),
    )
    done = sum(trial.state.is_finished() for trial in study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=done)  # the same seed draws the same
    study.optimize(fit, n_trials=max(0, trials - done))
    best = study.best_trial
    print(f"best of {len(study.trials)}: trial {best.number}, {best.params}, loss {best.value:.5f}")


if __name__ == "__main__":
    main()
