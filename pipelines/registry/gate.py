"""The gate: non-inferiority of a challenger to the champion, case by case, by stated rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError
from scipy import stats

import pipelines
from pipelines.registry.reference import CHALLENGER, CHAMPION
from segmed.errors import UsageError
from segmed.metrics import METRICS
from segmed.metrics.comparison import paired_values
from segmed.metrics.learned import doubt_of_learning, mean_dice_of
from segmed.metrics.resample import bootstrap_means
from segmed.structures import Frozen
from segmed.validation import first_fault

DEFAULT_RULES = Path(pipelines.__file__).with_name("configs") / "gate.yaml"
"""The default rules, used unless a file is given."""


class Rule(Frozen):
    """One non-inferiority test.

    Attributes:
        metric: Column of the scores.
        label: Name of a label, or `mean` over all.
        margin: Largest loss that is tolerated, in the metric's unit.
        test: `bootstrap`: lower confidence bound of the mean improvement above `-margin`;
            `wilcoxon`: signed-rank test that the improvement exceeds `-margin`.
        confidence: One-sided confidence of either.
    """

    metric: str
    label: str = "mean"
    margin: NonNegativeFloat
    test: Literal["bootstrap", "wilcoxon"] = "bootstrap"
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95


class GateRules(Frozen):
    """Everything that a challenger must show.

    Attributes:
        min_cases: With fewer cases nothing is decided.
        rules: Tests, all of which must pass.
        max_more_missed: Structures missed, challenger minus champion.
        max_more_false_positives: Structures invented, likewise.
        max_slowdown: Seconds a case, challenger over champion.
        evaluation: Manifest whose test cases are the frozen evaluation set, relative to the file
            of rules; a manifest given on the command line takes precedence.
    """

    min_cases: PositiveInt = 5
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    max_more_missed: NonNegativeInt = 0
    max_more_false_positives: NonNegativeInt = 0
    max_slowdown: Annotated[float, Field(gt=0.0)] = 2.0
    evaluation: Path | None = None


@dataclass(frozen=True)
class Line:
    """One line of the evidence.

    Attributes:
        rule: What was asked.
        champion: The champion's value.
        challenger: The challenger's value.
        improvement: Paired mean improvement, positive is better; in the metric's unit.
        bound: Lower confidence bound of the improvement, where the rule is a test.
        p_value: Of the signed-rank test, where that is the rule.
        needed: What would do, in words.
        passed: Whether it did.
    """

    rule: str
    champion: float
    challenger: float
    improvement: float
    bound: float | None
    p_value: float | None
    needed: str
    passed: bool


@dataclass(frozen=True)
class GateVerdict:
    """Verdict of the gate.

    Attributes:
        passed: Whether every line passed.
        lines: The evidence.
        cases: How many cases it rests on.
    """

    passed: bool
    lines: tuple[Line, ...]
    cases: int

    def rows(self) -> list[dict[str, Any]]:
        """The lines as records."""
        return [asdict(line) for line in self.lines]


def read_rules(path: Path = DEFAULT_RULES) -> GateRules:
    """Rules from a YAML file.

    Raises:
        UsageError: The file is missing, is not YAML, or a field is wrong; the message names it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rules = GateRules.model_validate(content)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file of gate rules at {path}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error)}") from error
    if rules.evaluation is None:
        return rules
    return rules.model_copy(update={"evaluation": path.parent / rules.evaluation})


def judge(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    rules: GateRules,
    *,
    seconds_per_case: Mapping[str, float],
) -> GateVerdict:
    """Hold a challenger against the champion.

    Args:
        champion: Its scores, as from `segmed.metrics.scores_table`.
        challenger: Scores of the same cases.
        rules: What must be shown.
        seconds_per_case: Of `champion` and `challenger`.

    Raises:
        MetricError: The two were scored on different cases, or nothing can be compared.
        UsageError: A rule names an unknown metric or label.
    """
    tables = {CHAMPION: champion, CHALLENGER: challenger}
    cases = int(champion["case"].nunique())
    lines = [_enough(cases, rules.min_cases), _learned(tables)]
    lines += [_line(tables, rule) for rule in rules.rules]
    lines += [
        _count(tables, "missed", rules.max_more_missed),
        _count(tables, "false_positive", rules.max_more_false_positives),
        _cost(seconds_per_case, rules.max_slowdown),
    ]
    return GateVerdict(all(line.passed for line in lines), tuple(lines), cases)


def _enough(cases: int, needed: int) -> Line:
    return Line("cases", cases, cases, 0.0, None, None, f"at least {needed}", cases >= needed)


def _learned(tables: Mapping[str, pd.DataFrame]) -> Line:
    """The challenger has learned something, whatever the champion is worth."""
    before, now = (mean_dice_of(tables[name]) for name in (CHAMPION, CHALLENGER))
    doubt = doubt_of_learning(tables[CHALLENGER])
    needed = doubt or "better than nothing and than one structure everywhere"
    return Line("learned", before, now, now - before, None, None, needed, doubt is None)


def _line(tables: Mapping[str, pd.DataFrame], rule: Rule) -> Line:
    known = {metric.name: metric for metric in METRICS}
    if rule.metric not in known:
        raise UsageError(f"the gate requires metric {rule.metric!r}: known are {', '.join(known)}")
    metric = known[rule.metric]
    values = paired_values(tables, [metric])
    if rule.label not in values:
        raise UsageError(f"the gate requires label {rule.label!r}: known are {', '.join(values)}")
    paired = values[rule.label][rule.metric]
    sign = 1.0 if metric.higher_is_better else -1.0
    gains = sign * (paired[CHALLENGER] - paired[CHAMPION]).to_numpy(dtype=np.float64)
    bound = p_value = None
    if rule.test == "bootstrap":
        tail = 100.0 * (1.0 - rule.confidence)
        bound = float(np.percentile(bootstrap_means(gains[:, None])[:, 0], tail))
        passed = bound > -rule.margin
    else:
        shifted = gains + rule.margin
        p_value = float(stats.wilcoxon(shifted, alternative="greater").pvalue)
        passed = p_value < 1.0 - rule.confidence
    return Line(
        f"{rule.metric} of {rule.label}",
        float(paired[CHAMPION].mean()),
        float(paired[CHALLENGER].mean()),
        float(gains.mean()),
        bound,
        p_value,
        f"no worse than {rule.margin} at {rule.confidence:.0%} ({rule.test})",
        bool(passed),
    )


def _count(tables: Mapping[str, pd.DataFrame], flag: str, most: int) -> Line:
    before, now = (int(tables[name][flag].astype(bool).sum()) for name in (CHAMPION, CHALLENGER))
    name = f"{flag.replace('_', ' ')} structures"
    return Line(
        name, before, now, before - now, None, None, f"at most {most} more", now - before <= most
    )


def _cost(seconds: Mapping[str, float], most: float) -> Line:
    before, now = seconds[CHAMPION], seconds[CHALLENGER]
    return Line(
        "seconds a case",
        before,
        now,
        before - now,
        None,
        None,
        f"at most {most} times as long",
        now <= most * before,
    )
