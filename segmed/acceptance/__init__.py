"""Acceptance of a model at a site: local scores, groups, verdict, and evidence without data.

```
facts.py       scanner, protocol, age decade and sex of a case; which of them may be shown
scoring.py     segment and score the local cases; refused ones are counted and the rest goes on
groups.py      groups of cases that are scored worse than the rest, with Holm's correction
shift.py       local scores beside those of the card
criteria.py    the YAML of criteria and stop rules
verdict.py     measures of a dossier, and the criteria applied to them
dossier.py     the record of all of it, without names
page.py        the same as one HTML page
```
"""
