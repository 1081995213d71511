"""Trees of any layout are read by patterns; what is kept and dropped is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmed.errors import ManifestError, SegmedError, UsageError
from segmed.io import read_label
from segmed.manifest import Manifest, build_manifest, check_manifest
from segmed.manifest.patterns import Pattern

SaveNifti = Callable[..., Path]
BY_SUBJECT = {"images": ["sub-*/{FLAIR,T1,T2}.nii.gz"], "label": "sub-*/mask.nii.gz"}


def mask(value: int = 1) -> np.ndarray:
    label = np.zeros((5, 6, 4), dtype=np.uint8)
    label[1:3, 2:4, 1:3] = value
    return label


@pytest.fixture
def subjects(tmp_path: Path, save_nifti: SaveNifti) -> Path:
    """Eight subjects with FLAIR, T1, T2 and a mask, one folder each."""
    for number in range(8):
        folder = tmp_path / f"tree/sub-{number:02d}"
        for channel, name in enumerate(("FLAIR", "T1", "T2")):
            save_nifti(folder / f"{name}.nii.gz", seed=3 * number + channel)
        save_nifti(folder / "mask.nii.gz", mask())
    return tmp_path / "tree"


def names(manifest: Manifest) -> list[str]:
    return [channel.name for channel in manifest.channels]


def test_braces_name_the_channels_in_order(subjects: Path) -> None:
    manifest = build_manifest(subjects, **BY_SUBJECT)
    assert names(manifest) == ["FLAIR", "T1", "T2"]
    assert {channel.modality for channel in manifest.channels} == {"MR"}
    assert [case.id for case in manifest.training][:2] == ["sub-00", "sub-01"]
    assert manifest.training[3].image[1] == "sub-03/T1.nii.gz"
    assert manifest.training[3].label == "sub-03/mask.nii.gz"
    assert check_manifest(manifest) == []
    chosen = build_manifest(subjects, **BY_SUBJECT, channels=["T2", "FLAIR"])
    assert names(chosen) == ["T2", "FLAIR"]
    assert chosen.remarks == ("T1 dropped: not among --channels",)
    assert chosen.training[0].image == ("sub-00/T2.nii.gz", "sub-00/FLAIR.nii.gz")


def test_a_channel_that_a_case_lacks_is_dropped_and_said(subjects: Path) -> None:
    (subjects / "sub-05/T2.nii.gz").unlink()
    manifest = build_manifest(subjects, **BY_SUBJECT)
    assert names(manifest) == ["FLAIR", "T1"]
    assert len(manifest.training) == 8
    assert manifest.remarks == (
        "T2 dropped: missing in 1 of 8 cases (sub-05); keep it and drop the case with --require T2",
    )
    required = build_manifest(subjects, **BY_SUBJECT, require=["T2"])
    assert names(required) == ["FLAIR", "T1", "T2"]
    assert "sub-05" not in {case.id for case in required.training}
    assert "1 case dropped (sub-05): without T2, which is required" in required.remarks
    with pytest.raises(ManifestError, match=r"T2 is missing in 1 of 8 cases .* --require T2"):
        build_manifest(subjects, **BY_SUBJECT, channels=["T1", "T2"])
    with pytest.raises(ManifestError, match="'PD' was found nowhere: found are FLAIR, T1, T2"):
        build_manifest(subjects, **BY_SUBJECT, require=["PD"])


def test_cases_without_label_and_labels_without_case_are_said(subjects: Path) -> None:
    (subjects / "sub-02/mask.nii.gz").unlink()
    for name in ("FLAIR", "T1", "T2"):
        (subjects / f"sub-04/{name}.nii.gz").unlink()
    manifest = build_manifest(subjects, **BY_SUBJECT)
    assert len(manifest.training) == 6
    assert "1 of 7 cases dropped: no label (sub-02)" in manifest.remarks
    assert "1 labels dropped: no image (sub-04/mask.nii.gz)" in manifest.remarks


def test_sessions_of_a_subject_stay_together(tmp_path: Path, save_nifti: SaveNifti) -> None:
    for patient in "abc":
        for session in (1, 2):
            folder = tmp_path / f"raw/{patient}/ses-{session}/anat"
            stem = f"{patient}_ses-{session}"
            for number, name in enumerate(("T1w", "T2w")):
                save_nifti(
                    folder / f"{stem}_{name}.nii.gz", seed=session + 7 * number + ord(patient)
                )
            save_nifti(tmp_path / f"lesions/{patient}/ses-{session}/{stem}_dseg.nii", mask())
    manifest = build_manifest(
        tmp_path,
        images=["raw/*/ses-*/anat/*_{T1w,T2w}.nii.gz"],
        label="lesions/*/ses-*/*_dseg.{nii,nii.gz}",
    )
    assert [case.id for case in manifest.training][:2] == ["a_ses-1", "a_ses-2"]
    assert [case.group for case in manifest.training] == ["a", "a", "b", "b", "c", "c"]
    assert names(manifest) == ["T1w", "T2w"]


def test_channels_may_have_patterns_of_their_own(subjects: Path) -> None:
    manifest = build_manifest(
        subjects,
        images=["first=sub-*/T1.nii.gz", "sub-*/FLAIR.nii.gz"],
        label="sub-*/mask.nii.gz",
    )
    assert names(manifest) == ["first", "FLAIR"]
    single = build_manifest(subjects, images=["sub-*/T1.nii.gz"], label="**/mask.nii.gz")
    assert names(single) == ["T1"]
    assert single.training[0].label == "sub-00/mask.nii.gz"


def test_braces_of_a_label_are_structures(subjects: Path, save_nifti: SaveNifti) -> None:
    for folder in sorted(subjects.iterdir()):
        other = np.zeros((5, 6, 4), dtype=np.uint8)
        other[4, 5, 3] = 255
        save_nifti(folder / "cord.nii.gz", other)
    wanted = {"images": ["sub-*/T1.nii.gz"], "label": "sub-*/{cord,mask}.nii.gz"}
    with pytest.raises(ManifestError, match="give a folder"):
        build_manifest(subjects, **wanted)
    manifest = build_manifest(subjects, **wanted, made_in=subjects.parent / "made")
    assert [(one.name, one.value) for one in manifest.labels] == [("cord", 1), ("mask", 2)]
    made = read_label(manifest.root / str(manifest.training[0].label)).numpy()[0]
    assert (made[4, 5, 3], made[1, 2, 1]) == (1, 2)
    assert any("2 to 2 a case) put together (structures)" in line for line in manifest.remarks)


def nuclei(root: Path, *, of: int = 4) -> None:
    """Pictures with a folder each, `masks` with one file a nucleus."""
    for number in range(of):
        picture = np.random.default_rng(number).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        folder = root / f"n{number}"
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        Image.fromarray(picture).save(folder / f"images/n{number}.png")
        for nucleus in range(number + 1):
            pixels = np.zeros((20, 24), dtype=np.uint8)
            pixels[3 * nucleus : 3 * nucleus + 2, 5:9] = 255
            Image.fromarray(pixels).save(folder / f"masks/x{nucleus}y.png")


def test_more_wildcards_in_a_label_are_several_masks(tmp_path: Path) -> None:
    nuclei(tmp_path / "stage1")
    wanted = {"images": ["*/images/*.png"], "label": "*/masks/*.png", "made_in": tmp_path / "made"}
    manifest = build_manifest(tmp_path / "stage1", **wanted)
    assert [case.id for case in manifest.training] == ["n0", "n1", "n2", "n3"]
    assert names(manifest) == ["red", "green", "blue"]
    assert int(read_label(manifest.root / str(manifest.training[2].label)).sum()) == 3 * 8
    assert check_manifest(manifest) == []
    numbered = build_manifest(tmp_path / "stage1", **wanted, masks="instances")
    assert [one.value for one in numbered.labels] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": ["*.nii.gz"]}, UsageError, "--image needs --label"),
        ({"label": "*.nii.gz"}, UsageError, "--label needs --image"),
        (
            {"images": ["/sub-*/T1.nii.gz"], "label": "*/mask.nii.gz"},
            UsageError,
            "relative to the source",
        ),
        (
            {"images": ["../*/T1.nii.gz"], "label": "*/mask.nii.gz"},
            UsageError,
            "relative to the source",
        ),
        ({"images": ["{a,b}/{T1,T2}.nii.gz"], "label": "m"}, ManifestError, "--label 'm' finds no"),
        (
            {"images": ["{a,b}/{T1,T2}.nii.gz"], "label": "*/mask.nii.gz"},
            UsageError,
            "only one pair of braces",
        ),
        ({"images": ["sub-*/{T1"], "label": "*/mask.nii.gz"}, UsageError, "a brace has no partner"),
        (
            {"images": ["x-*/T1"], "label": "*/mask.nii.gz"},
            ManifestError,
            "there are 8 folders such as sub-00 with FLAIR, T1, T2, mask (.nii.gz): "
            "--image '*/{FLAIR,T1,T2}.nii.gz' --label '*/mask.nii.gz' would read them",
        ),
        (
            {"images": ["sub-*/T1.nii.gz"], "label": "*.xyz"},
            ManifestError,
            "--label '*/mask.nii.gz' would",
        ),
        (
            {"images": ["sub-*/{T1,T1ce,PD}.nii.gz"], "label": "*/mask.nii.gz"},
            ManifestError,
            "finds no file for T1ce, PD",
        ),
        ({}, ManifestError, "is read by patterns: it has 8 folders"),
        ({"images": ["*/T?.nii.gz"], "label": "*/mask.nii.gz"}, ManifestError, "would both be"),
        (
            {"images": ["*/*.nii.gz"], "label": "*/mask.nii.gz"},
            ManifestError,
            "would be the label of several cases",
        ),
        ({**BY_SUBJECT, "masks": "all"}, UsageError, "known are instances, structures, union"),
        ({**BY_SUBJECT, "channels": ["T1", "T1"]}, UsageError, "a name occurs twice"),
        ({**BY_SUBJECT, "masks_folder": "m"}, UsageError, "leave out --masks-folder"),
        ({"require": ["T1"], "format": "raster"}, UsageError, "--require chooses among"),
    ],
)
def test_patterns_that_cannot_work_are_one_line(
    subjects: Path, options: dict[str, object], error: type[SegmedError], message: str
) -> None:
    with pytest.raises(error) as caught:
        build_manifest(subjects, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "path", "key", "case"),
    [
        ("sub-*/{T1,T1post}.nii", "sub-3/T1post.nii", ("3",), "sub-3"),
        ("**/x_[ab].nii", "u/v/x_a.nii", ("u/v",), "u_v"),
        ("**/x.nii", "x.nii", ("",), "x"),
        ("*_{T1,T2}.{nii,nii.gz}", "k_7_T2.nii.gz", ("k_7",), "k_7"),
        ("p?/*.png", "p4/a b.png", ("a b",), "a b"),
        ("a.b/*+c.nii", "a.b/1+c.nii", ("1",), "1+c"),
    ],
)
def test_a_pattern_gives_key_and_case(
    pattern: str, path: str, key: tuple[str, ...], case: str
) -> None:
    [found] = Pattern(pattern).search([path, "other/" + path, path + "x"][:1])
    assert (found.key, found.case) == (key, case)
    assert not Pattern(pattern).search([path + "x", "aXb/1+c.nii"])
