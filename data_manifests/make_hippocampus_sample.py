"""Makes the bundled sample from a copy of the Decathlon's hippocampus set, byte for byte.

Run it from anywhere: `python data_manifests/make_hippocampus_sample.py FOLDER_OF_TASK04`.
The rule is in `ATTRIBUTION.md` and in `TEXT` below; a second run gives the same bytes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from segmed.manifest import (
    Case,
    Channel,
    Code,
    LabelClass,
    Manifest,
    assign_folds,
    digest,
    write_manifest,
)

HERE = Path(__file__).resolve().parent
EVERY, NUM_CASES = 5, 40
TEST_EVERY, TEST_START, NUM_TEST = 7, 3, 6
NUM_FOLDS, SEED = 5, 0

LICENCE = "CC-BY-SA 4.0"
SOURCE = (
    "Medical Segmentation Decathlon, Task04 Hippocampus (Vanderbilt University Medical Center); "
    "Simpson et al. 2019, arXiv:1902.09063; Antonelli et al. 2022, Nature Communications 13:4128"
)
# SNOMED CT has no concept for the halves as drawn here: both carry the whole structure's.
HIPPOCAMPUS = Code(scheme="SCT", value="5366008", meaning="Hippocampus")


def make_sample(task04: Path, folder: Path = HERE) -> Path:
    """Copies the sample's files and writes its manifest.

    Args:
        task04: Folder with `imagesTr` and `labelsTr` of the hippocampus set.
        folder: Where `hippocampus_sample/` and `hippocampus_sample.json` go.

    Returns:
        The manifest's path.
    """
    files = sorted(task04.joinpath("imagesTr").glob("hippocampus_*.nii.gz"))
    chosen = files[::EVERY][:NUM_CASES]
    cases = [_copied(image, folder / "hippocampus_sample") for image in chosen]
    places = range(TEST_START, NUM_CASES, TEST_EVERY)[:NUM_TEST]
    held_out = tuple(cases[place] for place in places)
    manifest = Manifest(
        name="hippocampus_sample",
        labels=(
            LabelClass(name="anterior", value=1, code=HIPPOCAMPUS),
            LabelClass(name="posterior", value=2, code=HIPPOCAMPUS),
        ),
        channels=(Channel(name="T1", modality="MR"),),
        training=assign_folds(
            [case for case in cases if case not in held_out], num_folds=NUM_FOLDS, seed=SEED
        ),
        test=held_out,
        licence=LICENCE,
        source=SOURCE,
        root=folder,
    )
    return write_manifest(manifest, folder / "hippocampus_sample.json")


def _copied(image: Path, target: Path) -> Case:
    name = image.name.removesuffix(".nii.gz")
    label = image.parent.parent / "labelsTr" / image.name
    digests = {}
    for file, kind in ((image, "images"), (label, "labels")):
        copy = target / kind / image.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        digests[f"{target.name}/{kind}/{image.name}"] = digest(copy)
    image_name, label_name = digests
    return Case(id=name, group=name, image=(image_name,), label=label_name, sha256=digests)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task04", type=Path, help="folder with imagesTr and labelsTr")
    make_sample(parser.parse_args().task04)
