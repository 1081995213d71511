"""Acceptance of a model at a site: local scores, groups, verdict, and evidence without data.

```
facts.py       scanner, protocol, age decade and sex of a case; which of them may be shown
scoring.py     segment and score the local cases; refused ones are counted and the rest goes on
order.py       order of cases that depends on their scores alone
groups.py      groups of cases that are scored worse than the rest, with Holm's correction
shift.py       local scores beside those of the card
criteria.py    the YAML of criteria and stop rules
local_quality.py predicted quality of a package, fitted on cases given after its training
predicted.py   predicted quality and promise of a package
calibration.py  predicted quality beside the local scores
measured.py    measures that criteria are about
bound.py       bound on bad results, withdrawn by name
archive_facts.py  outcomes, drift and cost of an archive
monthly.py     results of an archive that reviewers judged
dossier.py     the record of all of it, without names
page.py        the same as one HTML page
files.py       files of a dossier
keys.py        keys of a site and of a study
evidence.py    signed records of scores without identifiers
pool.py        records of several sites put together
```
"""
