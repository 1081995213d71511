"""Signed records of sites: what they contain, tampering and replays, and pooling as one site."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sites import ScoredCase, make_site, part, score_bank

from pipelines.cli.accept_pool import lines_of
from pipelines.registry.acceptance import DEFAULT_CRITERIA
from pipelines.registry.pooled import PooledVerdict, judge_pool
from segmed.acceptance.criteria import read_criteria
from segmed.acceptance.dossier import make_dossier
from segmed.acceptance.evidence import (
    Evidence,
    RivalResults,
    make_evidence,
    read_evidence,
    sign,
    write_evidence,
)
from segmed.acceptance.keys import read_site_key, read_study_key
from segmed.acceptance.pool import pool_records
from segmed.acceptance.scoring import LocalResults, content_of
from segmed.errors import UsageError
from segmed.io import read_image
from segmed.io.atomic import PRIVATE

STUDY, OTHER_STUDY = b"s" * 32, b"t" * 32
SITES = 5
SAMPLE = Path(__file__).parents[2] / "data_manifests" / "hippocampus_sample" / "images"


@pytest.fixture(scope="module")
def bank(shared_data: Callable[[str], Path]) -> list[ScoredCase]:
    return score_bank(shared_data("hippocampus"), 60)


def worsened(results: LocalResults) -> LocalResults:
    """Results of a model that is slightly worse on every case."""
    table = results.table.copy()
    table["dice"] -= 0.01 * np.random.default_rng(0).uniform(0.5, 1.5, len(table))
    return LocalResults(**{**results.__dict__, "table": table})


@pytest.fixture(scope="module")
def whole(bank: list[ScoredCase]) -> tuple[object, LocalResults]:
    return make_site(bank, 0)


def evidence_of(
    whole: tuple[object, LocalResults], cases: list[str] | None = None, study: bytes = STUDY
) -> Evidence:
    model, results = whole
    rival, chosen = worsened(results), results
    if cases is not None:
        rival, chosen = part(rival, cases), part(results, cases)
    dossier = make_dossier(model, chosen, read_criteria(DEFAULT_CRITERIA))
    return make_evidence(dossier, chosen, study, RivalResults("1" * 64, rival))


def saved(folder: Path, name: str, evidence: Evidence, key: Ed25519PrivateKey) -> Path:
    return write_evidence(folder / name, sign(evidence, key))


@pytest.fixture
def keys() -> list[Ed25519PrivateKey]:
    return [Ed25519PrivateKey.generate() for _ in range(SITES)]


@pytest.fixture
def five(
    whole: tuple[object, LocalResults], tmp_path: Path, keys: list[Ed25519PrivateKey]
) -> list[Path]:
    """Records of five sites, which share the cases of one."""
    cases = whole[1].cases
    return [
        saved(tmp_path, f"site{number}.json", evidence_of(whole, cases[number::SITES]), key)
        for number, key in enumerate(keys)
    ]


def test_five_sites_pooled_equal_all_cases_at_one_site(
    whole: tuple[object, LocalResults], five: list[Path], tmp_path: Path
) -> None:
    one = saved(tmp_path, "all.json", evidence_of(whole), Ed25519PrivateKey.generate())
    central, pooled = judge_pool([one]), judge_pool(five)
    assert pooled.gate == central.gate
    assert pooled.gate is not None
    assert pooled.gate.passed
    pd.testing.assert_frame_equal(pooled.summary, central.summary)
    assert judge_pool(five[::-1]).gate == central.gate


def test_pooled_scores_are_those_of_the_dossier(
    whole: tuple[object, LocalResults], five: list[Path]
) -> None:
    model, results = whole
    dossier = make_dossier(model, results, read_criteria(DEFAULT_CRITERIA))
    summary = judge_pool(five).summary.set_index(["label", "metric"])
    for row in dossier.scores:
        found = summary.loc[(row.label, row.metric)]
        assert (found["mean"], found["ci_low"], found["ci_high"]) == pytest.approx(
            (row.mean, row.ci_low, row.ci_high), rel=1e-12
        )


def test_record_names_no_case_and_no_group(
    whole: tuple[object, LocalResults], five: list[Path]
) -> None:
    texts = [path.read_text(encoding="utf-8") for path in five]
    results = whole[1]
    values = {value for found in results.values.values() for value in found.values()}
    for text in texts:
        assert not [case for case in results.cases if case in text]
        assert not [value for value in values if value in text]
        assert not [digest for digest in results.contents.values() if digest in text]
    assert five[0].stat().st_mode & 0o777 == PRIVATE


def test_hash_of_a_case_depends_on_the_key_of_the_study(
    whole: tuple[object, LocalResults],
) -> None:
    here, there = evidence_of(whole), evidence_of(whole, study=OTHER_STUDY)
    assert not here.cases & there.cases
    assert here.study_key != there.study_key


TAMPERED = [
    ("a score", lambda e: e["rows"][0]["model"]["values"].update(dice=0.99)),
    ("a rival's score", lambda e: e["rows"][0]["against"]["values"].update(dice=0.01)),
    ("a case left out", lambda e: e["rows"].pop()),
    ("the model", lambda e: e.update(model="2" * 64)),
    ("a finding", lambda e: e.update(shifts=e["shifts"] + 1)),
    ("refusals", lambda e: e.update(refused={"truncated": 1})),
    ("its number", lambda e: e.update(record="0" * 32)),
    ("its day", lambda e: e.update(created="2020-01-01")),
]


@pytest.mark.parametrize(("what", "change"), TAMPERED, ids=[what for what, _ in TAMPERED])
def test_changed_record_is_refused(five: list[Path], what: str, change: Callable) -> None:
    content = json.loads(five[1].read_text(encoding="utf-8"))
    change(content["evidence"])
    five[1].write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match=r"site1\.json was changed after its site signed it"):
        judge_pool(five)


def test_signature_of_another_site_is_refused(five: list[Path]) -> None:
    one, other = (json.loads(path.read_text(encoding="utf-8")) for path in five[:2])
    one["public_key"] = other["public_key"]
    five[0].write_text(json.dumps(one), encoding="utf-8")
    with pytest.raises(UsageError, match=r"site0\.json was changed"):
        judge_pool(five)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "null", '{"kind": "segmed evidence"}', "\x00" * 9]
)
def test_file_that_is_no_record_is_refused_by_name(five: list[Path], text: str) -> None:
    five[2].write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"site2\.json is no evidence record"):
        judge_pool(five)


def test_same_record_twice_is_refused(five: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes(five[3].read_bytes())
    with pytest.raises(UsageError, match=r"copy\.json and .*site3\.json are the same record"):
        judge_pool([*five, copy])
    with pytest.raises(UsageError, match=r"site3\.json is given twice"):
        judge_pool([five[3], five[3]])


def test_same_cases_in_two_records_are_refused(
    whole: tuple[object, LocalResults],
    five: list[Path],
    keys: list[Ed25519PrivateKey],
    tmp_path: Path,
) -> None:
    cases = whole[1].cases[::SITES]
    again = saved(tmp_path, "again.json", evidence_of(whole, cases), keys[0])
    with pytest.raises(UsageError, match=r"records of one site .* have 6 cases in common"):
        judge_pool([*five, again])
    elsewhere = saved(tmp_path, "elsewhere.json", evidence_of(whole, cases[:2]), keys[1])
    with pytest.raises(UsageError, match=r"records of two sites .* have 2 cases in common"):
        judge_pool([*five, elsewhere])


def test_record_of_another_model_study_or_rival_is_refused(
    five: list[Path],
    keys: list[Ed25519PrivateKey],
    tmp_path: Path,
    whole: tuple[object, LocalResults],
) -> None:
    own = read_evidence(five[4]).evidence
    for change, named in (
        ({"model": "2" * 64}, "another model"),
        ({"against": "3" * 64}, "different models"),
        ({"study_key": "0" * 16}, "different study keys"),
    ):
        path = saved(tmp_path, "odd.json", own.model_copy(update=change), keys[4])
        with pytest.raises(UsageError, match=rf"odd\.json.*{named}"):
            judge_pool([*five[:4], path])
    with pytest.raises(UsageError, match="another model"):
        pool_records(five, model="4" * 64)


def test_record_of_other_structures_is_refused(
    five: list[Path], keys: list[Ed25519PrivateKey], tmp_path: Path
) -> None:
    own = read_evidence(five[4]).evidence
    rows = tuple(row for row in own.rows if row.label == "anterior")
    path = saved(tmp_path, "half.json", own.model_copy(update={"rows": rows}), keys[4])
    with pytest.raises(UsageError, match=r"half\.json.*different structures: posterior"):
        judge_pool([*five[:4], path])


@pytest.mark.parametrize(
    ("values", "named"),
    [({"dice": 1.2}, "dice is 1.2"), ({"hd95_mm": -1.0}, "hd95_mm is -1"), ({"dise": 1}, "needed")],
)
def test_score_that_none_can_be_is_refused(
    five: list[Path], values: dict[str, float], named: str
) -> None:
    content = json.loads(five[0].read_text(encoding="utf-8"))
    content["evidence"]["rows"][0]["model"]["values"].update(values)
    five[0].write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"site0\.json is no evidence record.*{named}"):
        read_evidence(five[0])


def test_record_of_an_unknown_site_is_refused_where_sites_are_listed(
    five: list[Path], tmp_path: Path
) -> None:
    names = [read_evidence(path).site for path in five]
    listed = tmp_path / "sites.txt"
    listed.write_text(
        "# known\n" + "\n".join(f"{name}  hospital {i}" for i, name in enumerate(names)),
        encoding="utf-8",
    )
    assert judge_pool(five, sites=listed).pool.is_known
    listed.write_text("\n".join(names[:4]), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"site4\.json is signed by {names[4]}"):
        judge_pool(five, sites=listed)
    listed.write_text("hospital one", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1: 'hospital' is not the name of a site"):
        judge_pool(five, sites=listed)


def test_finding_of_one_site_stops_the_pool(
    five: list[Path], keys: list[Ed25519PrivateKey], tmp_path: Path
) -> None:
    changed = read_evidence(five[4]).evidence.model_copy(update={"groups": 2})
    path = saved(tmp_path, "finding.json", changed, keys[4])
    found: PooledVerdict = judge_pool([*five[:4], path])
    assert found.gate is not None
    assert found.gate.passed
    assert not found.passed
    assert "2 worse groups" in found.findings[0]


def test_drift_that_a_site_could_not_judge_is_not_said_to_be_none(
    whole: tuple[object, LocalResults],
    five: list[Path],
    keys: list[Ed25519PrivateKey],
    tmp_path: Path,
) -> None:
    few = saved(tmp_path, "few.json", evidence_of(whole, whole[1].cases[4:35:SITES]), keys[4])
    many = saved(tmp_path, "many.json", evidence_of(whole, whole[1].cases[:8]), keys[0])
    assert [read_evidence(path).evidence.drift for path in (few, many)] == [None, 0]
    lines = lines_of(judge_pool([*five[:4], few]))
    assert [line.split()[-1] for line in lines[1:6]] == ["known"] * 5  # six cases each


def test_keys_are_drawn_once_for_their_owner_alone(tmp_path: Path) -> None:
    site, study = tmp_path / "a" / "site.key", tmp_path / "a" / "study.key"
    first = read_site_key(site).private_bytes_raw(), read_study_key(study)
    assert (read_site_key(site).private_bytes_raw(), read_study_key(study)) == first
    for path, name in ((site, "site key"), (study, "study key")):
        assert path.stat().st_mode & 0o777 == PRIVATE
        path.chmod(0o644)
        with pytest.raises(UsageError, match=f"others may read the {name}"):
            (read_site_key if path == site else read_study_key)(path)
    site.chmod(0o600)
    site.write_text("no key", encoding="utf-8")
    with pytest.raises(UsageError, match="no private key"):
        read_site_key(site)


def test_copies_of_a_case_are_not_exported(whole: tuple[object, LocalResults]) -> None:
    model, results = whole
    twice = part(results, results.cases[:6])
    twice.contents[twice.cases[0]] = twice.contents[twice.cases[1]]
    dossier = make_dossier(model, twice, read_criteria(DEFAULT_CRITERIA))
    with pytest.raises(UsageError, match="copies of others"):
        make_evidence(dossier, twice, STUDY)


def test_copy_of_an_image_has_one_digest_in_any_order_of_axes(tmp_path: Path) -> None:
    original = sorted(SAMPLE.glob("*.nii.gz"))[0]
    loaded = nib.load(original)
    turned = tmp_path / "turned.nii"
    nib.save(loaded.as_reoriented(nib.orientations.axcodes2ornt("PSL")), turned)
    other = sorted(SAMPLE.glob("*.nii.gz"))[1]
    digests = [content_of(read_image(path)) for path in (original, turned, other)]
    assert digests[0] == digests[1] != digests[2]
