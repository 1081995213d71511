"""`segmed archive find` and `list` in an archive of many studies, after start-up.

Run: `python -m tests.benchmarks.bench_archive_find [--studies 10000]`.

The ledger is filled through its own calls, one volume file a study; each question is asked five
times, the median CPU time counts. The bare peer is one query of SQLite for an equal path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from segmed.archive.index import find_inputs_of, list_index, write_index
from segmed.archive.ledger import Ledger
from segmed.archive.study import Study, key_of

RESULTS = Path(__file__).parent / "results" / "archive_find.json"
REPEATS = 5
MEASURES = {"flags": ["border:anterior"], "volumes_ml": {"anterior": 1.5, "posterior": 1.2}}


def fill(out: Path, studies: int) -> None:
    """A ledger of so many segmented studies."""
    with Ledger(out / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        for number in range(studies):
            content = hashlib.sha256(str(number).encode()).hexdigest()
            place = f"sub-{number:05d}/ses-1/T1.nii.gz"
            study = Study(content, "nifti", place, identity=place, root="/data/scans")
            key = key_of(content, "package", "nifti")
            ledger.enter(study, key, "package", settings="nifti", run=run)
            ledger.note_output(
                key,
                f"segmentations/{place}",
                content,
                seconds=1.0,
                measures=MEASURES,
                is_final=True,
            )
        write_index(ledger, out)


def median_s(act: Callable[[], object]) -> float:
    """Median CPU time of an act, in s."""
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        act()
        times.append(time.process_time() - begun)
    return round(statistics.median(times), 4)


def bare(path: Path, place: str) -> list[tuple[str, ...]]:
    """One indexed look-up, as the least that any search costs."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT key FROM places WHERE place = ?", (place,)).fetchall()


def main() -> None:
    """Fill a ledger, ask, print and write the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10000)
    studies = parser.parse_args().studies
    place = f"sub-{studies // 2:05d}/ses-1/T1.nii.gz"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        fill(out, studies)
        record = {
            "studies": studies,
            "find_path_s": median_s(lambda: list(find_inputs_of(out, [place]))),
            "find_words_s": median_s(lambda: list(find_inputs_of(out, ["SUB-00", "t1", "border"]))),
            "find_nothing_s": median_s(lambda: list(find_inputs_of(out, ["no such text"]))),
            "list_s": median_s(lambda: list(list_index(out))),
            "bare_lookup_s": median_s(lambda: bare(out / "ledger.sqlite", place)),
        }
    print(json.dumps(record, indent=2))
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
