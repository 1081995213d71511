"""Export and import of models: zip, ONNX, OpenVINO, MONAI bundle; checked by hash."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.registry.loading import resolve_model
from pipelines.registry.monai_bundle import PACKAGE_IN_BUNDLE, write_bundle
from pipelines.registry.reference import Version
from pipelines.registry.registration import register_package
from segmed.encoding import REGION_THRESHOLD, LabelEncoding
from segmed.errors import PackageError, UsageError, unknown_name
from segmed.inference.silent_openvino import import_openvino
from segmed.io.atomic import flush_tree
from segmed.io.digest import sha256_of_file, sha256_of_text
from segmed.manifest import digest
from segmed.package import CARD_FILE, PLAN_FILE, ModelPackage
from segmed.package.card import read_card
from segmed.package.monai_bundle import is_bundle, package_of_bundle
from segmed.plan.cleaning_words import rules_in_words

MONAI_BUNDLE = "monai-bundle"
"""Form of a bundle that segmed did not write."""

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of every member: the same package gives the same archive, byte for byte."""


def export_model(reference: str, out: Path, form: str, *, folder: Path = Path()) -> dict[str, Any]:
    """Write a model in another form.

    Args:
        reference: The model.
        out: File (`zip`) or folder (the others) to make; what is there is not overwritten.
        form: `zip`, `onnx`, `openvino` or `bundle`.
        folder: Working folder, for the embedded registry.

    Returns:
        Where it is, its SHA-256, and the model's own record.

    Raises:
        UsageError: Unknown form, or something is at `out` already.
    """
    if form not in WRITERS:
        raise unknown_name("format", form, WRITERS)
    if out.exists():
        raise UsageError(f"{out} exists already; choose another place")
    resolved = resolve_model(reference, folder=folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        made = Path(scratch) / "export"
        WRITERS[form](resolved.path, resolved.load(), made)
        flush_tree(made)
        made.rename(out)
    return {**resolved.record(), "format": form, "path": str(out), "sha256": digest_of(out)}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of the sorted names and digests of a folder's files."""
    if path.is_file():
        return sha256_of_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = (f"{sha256_of_file(f)}  {f.relative_to(path).as_posix()}\n" for f in files)
    return sha256_of_text("".join(listing))


def import_model(
    file: Path,
    name: str,
    *,
    sha256: str | None = None,
    alias: str | None = None,
    form: str = "export",
    folder: Path = Path(),
) -> Version:
    """Register an exported model, or the model of a MONAI bundle.

    Args:
        file: A zip of a package, a package folder, or a MONAI bundle that `export_model` wrote.
        name: Registered name.
        sha256: Digest that the file must have.
        alias: Alias to give the version.
        form: `export`, or `monai-bundle` for a bundle whose network is one of MONAI's.
        folder: Working folder, for the embedded registry.

    Raises:
        UsageError: There is no such file.
        PackageError: The digest is another, or the package is damaged.
    """
    if not file.exists():
        raise UsageError(f"there is nothing at {file}")
    if sha256 is not None:
        found = digest_of(file)
        if found != sha256.lower():
            raise PackageError(
                f"{file} has sha256 {found}, not {sha256.lower()}; it was damaged or changed on "
                "its way: copy it again"
            )
    if form == MONAI_BUNDLE:
        with tempfile.TemporaryDirectory(prefix="segmed-bundle-") as scratch:
            made = package_of_bundle(file).save(Path(scratch) / "package")
            return register_package(made, name, alias, folder=folder)
    inside = file / PACKAGE_IN_BUNDLE
    package = inside if (inside / CARD_FILE).is_file() else file
    if package is file and is_bundle(file):
        raise PackageError(
            f"{file} is a MONAI bundle that segmed did not write: give --format {MONAI_BUNDLE}"
        )
    return register_package(package, name, alias, folder=folder)


def _write_zip(source: Path, package: ModelPackage, out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in read_card(source).file_names:
            member = zipfile.ZipInfo(name, ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            with (source / name).open("rb") as stream, archive.open(member, "w") as target:
                shutil.copyfileobj(stream, target)


def example_input(package: ModelPackage) -> torch.Tensor:
    """A window of zeros, `[1, C, *patch]`."""
    return torch.zeros(1, package.plan.network_channels, *package.plan.patch_size)


def _write_onnx(source: Path, package: ModelPackage, out: Path) -> None:
    """Windows to logits; the batch may vary, the window is the plan's."""
    package.require_one_plan("export onnx")
    out.mkdir()
    with warnings.catch_warnings():
        # The exporter warns of its own internals; a test compares the file's output with ours.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            package.build(),
            (example_input(package).repeat(2, *[1] * (package.plan.spatial_dims + 1)),),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(out / "model.onnx"))
    _describe(source, package, out)


def _write_openvino(source: Path, package: ModelPackage, out: Path) -> None:
    """Windows to logits as OpenVINO's intermediate form, in float32."""
    package.require_one_plan("export openvino")
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise UsageError(
            "OpenVINO is not installed: pip install 'segmed[openvino]', or export onnx"
        ) from error
    out.mkdir()
    model = openvino.convert_model(package.build(), example_input=example_input(package))
    openvino.save_model(model, str(out / "model.xml"), compress_to_fp16=False)
    _describe(source, package, out)


READ_ME = """# {architecture} on {data}

Input `image`: float32 [batch, {channels}, {patch}], a window of an image that is prepared as
`preprocessing` in plan.yaml says. Output `logits`: [batch, {classes}, {patch}], {meaning}.
{cleaning}sha256.json contains the digest of each file; package hash {hash}.

{hint}"""
"""Files beside a network for those who run it."""

HINTS = {
    "model.onnx": 'onnxruntime.InferenceSession("model.onnx").run(None, {"image": window})\n',
    "model.xml": """openvino.compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

Without the hint some processors compute in bfloat16 and give slightly other logits.
""",
}
"""How each network file is run."""


def _describe(source: Path, package: ModelPackage, out: Path) -> None:
    """Plan, card and a page to read beside a network, for those who prepare its input."""
    plan = package.plan
    rules = rules_in_words(plan)
    hint = next(text for name, text in HINTS.items() if (out / name).exists())
    text = READ_ME.format(
        architecture=package.architecture,
        data=plan.name,
        channels=plan.network_channels,
        patch=", ".join(map(str, plan.patch_size)),
        classes=plan.num_classes,
        meaning=_meaning(plan.encoding),
        cleaning="".join(f"After the network, on the grid of the image: {t}.\n" for t in rules),
        hash=package.hash,
        hint=hint,
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    for name in (PLAN_FILE, CARD_FILE):
        shutil.copyfile(source / name, out / name)
    listing = {
        file.name: digest(file) for file in sorted(out.iterdir()) if file.name != "sha256.json"
    }
    (out / "sha256.json").write_text(json.dumps(listing, indent=2), encoding="utf-8")


def _meaning(encoding: LabelEncoding) -> str:
    """Meaning of the output channels in words."""
    if not encoding.has_regions:
        return "background first"
    painted = ", ".join(f"{label.name} as {label.value}" for label in encoding.labels)
    return (
        "a region each, which overlap: take the sigmoid, and paint where it exceeds "
        f"{REGION_THRESHOLD:g} in this order, each over those before it: {painted}"
    )


WRITERS: dict[str, Callable[[Path, ModelPackage, Path], None]] = {
    "zip": _write_zip,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "bundle": write_bundle,
}
"""Writers by format."""
