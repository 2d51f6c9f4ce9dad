"""Committed scores against what happened: labels matched by stream and time, and measured.

- `evaluating`  source and output of a pipeline, and how they are compared
- `matching`    rows of parts, and their labels, in the order of the source
- `measures`    figures of pairs: numbers, classes, bands, ranks
- `evaluation`  the table of figures
"""

from streamrnn.jobs.evaluation.evaluating import comparison, evaluate_pipeline, scored_source
from streamrnn.jobs.evaluation.evaluation import Evaluation, GroupedMeasures
from streamrnn.jobs.evaluation.matching import (
    ComparedCounts,
    EvaluationPlan,
    LabelledRows,
    ScoreRows,
    compared_rows,
    not_compared,
)
from streamrnn.jobs.evaluation.measures import Classes, Number
