"""Committed scores against what happened: labels matched by stream and time, and measured.

- `evaluation`  source and output of a pipeline, how they are compared, and the table of figures
- `matching`    rows of parts, and their labels, in the order of the source
- `measures`    figures of pairs: numbers, classes, bands, ranks
"""

from streamrnn.jobs.evaluation.evaluation import (
    Evaluation,
    GroupedMeasures,
    comparison,
    evaluate_pipeline,
    scored_source,
)
from streamrnn.jobs.evaluation.matching import (
    ComparedCounts,
    EvaluationPlan,
    LabelledRows,
    ScoreRows,
    compared_rows,
    not_compared,
)
from streamrnn.jobs.evaluation.measures import Classes, Number
