"""Predicted quality: Dice without a reference, with intervals, and a bound on failures.

```
binomial.py      exact bounds of a failure rate
conformal.py     split-conformal quantiles by patient
risk_coverage.py risk-coverage curve and AURC
risk.py          promises about the unreviewed: Learn then Test
case_features.py names of the features, and those of one case
features.py      features of a segmentation, gathered slab by slab
agreement.py     pairwise Dice of the members of an ensemble, window by window
fitting.py       from out-of-fold cases to a quality model
model.py         the model: plain numbers that give Dice and volume with intervals
cases.py         cases for the fit as a file
package_form.py  the model in the provenance of a package
identity.py      its key there, and its part in the hash of the package
statements.py    intervals of volumes for reports
```
"""
