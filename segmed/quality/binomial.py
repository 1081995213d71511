"""Exact binomial bounds of a failure rate: Clopper and Pearson's, and the test behind them.

Source:
    Clopper and Pearson 1934, Biometrika 26(4), p. 404.
"""

from __future__ import annotations

from segmed.errors import MetricError


def binomial_p_value(failures: int, trials: int, rate: float) -> float:
    """P-value of the hypothesis that the failure rate is above `rate`.

    Args:
        failures: Failures seen.
        trials: Independent trials; without any the p-value is 1.
        rate: The rate, 0 to 1.

    Returns:
        The probability of so few failures, or fewer, at exactly that rate.

    Raises:
        MetricError: The counts contradict each other, or the rate is not 0 to 1.
    """
    _check(failures, trials)
    if not 0.0 <= rate <= 1.0:
        raise MetricError(f"a failure rate must be 0 to 1, got {rate}")
    from scipy import special  # noqa: PLC0415 - reading a package's model does without

    return float(special.bdtr(failures, trials, rate)) if trials else 1.0


def upper_bound(failures: int, trials: int, confidence: float) -> float:
    """One-sided upper Clopper-Pearson bound of a failure rate.

    Args:
        failures: Failures seen.
        trials: Independent trials; without any the bound is 1.
        confidence: Probability with which the bound is kept, such as 0.95.

    Raises:
        MetricError: The counts contradict each other, or the confidence is not between 0 and 1.
    """
    _check(failures, trials)
    check_confidence(confidence)
    if failures >= trials:
        return 1.0
    from scipy import special  # noqa: PLC0415 - as above

    return float(special.betaincinv(failures + 1, trials - failures, confidence))


def lower_bound(failures: int, trials: int, confidence: float) -> float:
    """One-sided lower Clopper-Pearson bound of a failure rate; see `upper_bound`."""
    return 1.0 - upper_bound(trials - failures, trials, confidence) if trials else 0.0


def fewest_trials(rate: float, confidence: float) -> int:
    """Fewest trials, all without a failure, that keep the upper bound at or below a rate.

    Raises:
        MetricError: The rate or the confidence is not between 0 and 1.
    """
    check_confidence(confidence)
    if not 0.0 < rate < 1.0:
        raise MetricError(f"a failure rate must be above 0 and below 1, got {rate}")
    trials = 1
    while binomial_p_value(0, trials, rate) > 1.0 - confidence:
        trials += 1
    return trials


def check_confidence(confidence: float) -> None:
    """Validate a confidence.

    Raises:
        MetricError: It is not between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:
        raise MetricError(f"a confidence must be above 0 and below 1, got {confidence}")


def _check(failures: int, trials: int) -> None:
    if not 0 <= failures <= trials:
        raise MetricError(f"{failures} failures in {trials} trials: give 0 to {trials}")
