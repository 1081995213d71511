"""Predicted quality: Dice without a reference, with intervals, and a bound on failures.

```
binomial.py      exact bounds of a failure rate
conformal.py     split-conformal quantiles by patient
risk_coverage.py risk-coverage curve and AURC
risk.py          promises about the unreviewed: Learn then Test
```
"""
