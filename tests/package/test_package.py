"""Packages: what is written is read, what was touched is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segmed.errors import PackageError, WeightsError
from segmed.models import build_model
from segmed.package import ModelPackage
from segmed.plan import Plan

OPTIONS = {"widths": (4, 8), "strides": ((1, 1), (2, 2))}


@pytest.fixture(scope="module")
def package(tiny_2d_plan: Plan) -> ModelPackage:
    network = build_model("unet", spatial_dims=2, in_channels=1, num_classes=2, **OPTIONS)
    return ModelPackage(
        "unet", OPTIONS, tiny_2d_plan, network.state_dict(), {"seed": 3, "data": "abc"}
    )


@pytest.fixture
def folder(package: ModelPackage, tmp_path: Path) -> Path:
    return package.save(tmp_path / "package")


def test_package_read_back_computes_the_same(package: ModelPackage, folder: Path) -> None:
    again = ModelPackage.load(folder)
    assert again.hash == package.hash
    assert again.plan == package.plan
    assert again.provenance == {"seed": 3, "data": "abc"}
    windows = torch.rand(1, 1, 16, 16)
    network = again.build()
    assert not network.training
    torch.testing.assert_close(network(windows), package.build()(windows), rtol=0, atol=0)


def test_package_of_zip_equals_that_of_folder(folder: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "flat"), "zip", folder)
    shutil.make_archive(str(tmp_path / "deep"), "zip", folder.parent, folder.name)
    for name in ("flat.zip", "deep.zip"):
        assert ModelPackage.load(tmp_path / name).hash == ModelPackage.load(folder).hash


def test_hash_changes_with_weights_and_plan_but_not_with_provenance(package: ModelPackage) -> None:
    other = {name: value + 1 for name, value in package.state.items()}
    assert replace(package, state=other).hash != package.hash
    plan = package.plan.model_copy(update={"patch_size": (32, 32)})
    assert replace(package, plan=plan).hash != package.hash
    assert replace(package, architecture="unetpp").hash != package.hash
    assert replace(package, provenance={"seed": 4}).hash == package.hash


@pytest.mark.parametrize("name", ["model.safetensors", "plan.yaml"])
def test_changed_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PackageError, match="sha256"):
        ModelPackage.load(folder)


def test_changed_options_are_refused(folder: Path) -> None:
    rewrite(folder, options={"widths": [4, 8, 16]})
    with pytest.raises(PackageError, match="changed"):
        ModelPackage.load(folder)


@pytest.mark.parametrize("version", [0, 99, None, "1", True])
def test_other_schema_version_says_so(folder: Path, version: object) -> None:
    rewrite(folder, schema_version=version)
    with pytest.raises(PackageError, match="schema version"):
        ModelPackage.load(folder)


def test_unknown_key_is_refused_by_name(folder: Path) -> None:
    rewrite(folder, hook="os.system")
    with pytest.raises(PackageError, match="hook"):
        ModelPackage.load(folder)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "plan.yaml").unlink()
    with pytest.raises(PackageError, match=r"plan\.yaml is missing"):
        ModelPackage.load(folder)


def test_pickle_beside_or_instead_of_a_package_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(PackageError, match="pickle"):
        ModelPackage.load(tmp_path / "model.pt")
    shutil.copy(tmp_path / "model.pt", folder)
    with pytest.raises(PackageError, match="pickle"):
        ModelPackage.load(folder)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/plan.yaml", "a/../../plan.yaml", "..\\plan.yaml", "C:plan.yaml"],
)
def test_archive_that_reaches_outside_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(PackageError, match="outside"):
        ModelPackage.load(tmp_path / "bad.zip")


def test_archive_with_a_link_or_a_stranger_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("plan.yaml")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PackageError, match="link"):
        ModelPackage.load(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("package/setup.py", "x")
    with pytest.raises(PackageError, match="contains only"):
        ModelPackage.load(tmp_path / "code.zip")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archive_that_unpacks_to_a_hundred_times_its_size_is_refused(
    tmp_path: Path, packing: int
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", packing) as archive:
        archive.writestr("model.safetensors", bytes(8 << 20))
    with pytest.raises(PackageError, match=r"unpacks from \d+ to 8388608 bytes"):
        ModelPackage.load(tmp_path / "bomb.zip")


def test_saving_replaces_a_package_but_nothing_else(
    package: ModelPackage, folder: Path, tmp_path: Path
) -> None:
    replace(package, provenance={"seed": 9}).save(folder)
    assert ModelPackage.load(folder).provenance == {"seed": 9}
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(PackageError, match="not a package"):
        package.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text(encoding="utf-8") == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "thesis"]


def test_save_that_fails_leaves_nothing_behind(package: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="JSON"):
        replace(package, provenance={"when": object()}).save(tmp_path / "package")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_refused(package: ModelPackage) -> None:
    state = dict(package.state)
    state.pop(next(iter(state)))
    with pytest.raises(WeightsError, match="unet"):
        replace(package, state=state).build()


def test_shared_tensors_are_saved(package: ModelPackage, tmp_path: Path) -> None:
    shared = torch.rand(4)
    odd = replace(package, state={"a": shared, "b": shared[:2]})
    again = ModelPackage.load(odd.save(tmp_path / "odd"))
    assert torch.equal(again.state["b"], shared[:2])


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "package.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8"
    )
