"""Scores that cannot flatter a failure: per case, summarised, and compared between models.

```
score.py       what is measured, and what each metric is called
pair.py        two label maps, checked and cropped
label_pairs.py  files of predictions beside files of references, by case
archive_pairs.py  outputs of an archive run beside references, by its index
overlap.py     counts of voxels and their ratios
padded_box.py  a padded box, its surface voxels, its neighbourhoods
surface.py     distances between surfaces and the scores made of them
lesions.py     connected components and how they match
case.py        all scores of one case
case_scores.py  all scores of all cases as one MONAI metric
table.py       the table of scores; CSV, Parquet, JSON
resample.py    seeded bootstrap
summary.py     means beside their counts
significance.py  signed-rank test, Holm's correction
learned.py     evidence that a training learned something at all
comparison.py  models on the same cases: differences, tests, ranks
sentences.py   the outcome in words
quality.py     flags without a reference
measures.py    what is measured on every case of a training and of an archive
cumulative.py  the scores as MONAI metrics
training_norms.py  ranges and distributions of a training set, to travel with the model
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.metrics.case import evaluate_case
    from segmed.metrics.case_scores import CaseScores
    from segmed.metrics.comparison import Comparison, ModelCost, compare_models
    from segmed.metrics.cumulative import CumulativeScores, DiceScore, SurfaceScores
    from segmed.metrics.quality import (
        QualityFlag,
        Shape,
        ShapeRange,
        check_quality,
        check_shapes,
        learn_ranges,
        measure_shapes,
    )
    from segmed.metrics.score import FLAGS, METRICS, CaseScore, Metric
    from segmed.metrics.summary import summarise
    from segmed.metrics.table import read_table, scores_table, write_table
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.metrics.case": "evaluate_case",
            "segmed.metrics.case_scores": "CaseScores",
            "segmed.metrics.comparison": "Comparison ModelCost compare_models",
            "segmed.metrics.cumulative": "CumulativeScores DiceScore SurfaceScores",
            "segmed.metrics.quality": "QualityFlag Shape ShapeRange check_quality check_shapes "
            "learn_ranges measure_shapes",
            "segmed.metrics.score": "FLAGS METRICS CaseScore Metric",
            "segmed.metrics.summary": "summarise",
            "segmed.metrics.table": "read_table scores_table write_table",
        },
    )

__all__ = [
    "FLAGS",
    "METRICS",
    "CaseScore",
    "CaseScores",
    "Comparison",
    "CumulativeScores",
    "DiceScore",
    "Metric",
    "ModelCost",
    "QualityFlag",
    "Shape",
    "ShapeRange",
    "SurfaceScores",
    "check_quality",
    "check_shapes",
    "compare_models",
    "evaluate_case",
    "learn_ranges",
    "measure_shapes",
    "read_table",
    "scores_table",
    "summarise",
    "write_table",
]
