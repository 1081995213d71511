"""Volumes in two files, header and voxels (.hdr/.img, .nhdr/.raw), one folder a case, names alike: headers are equal byte for byte
(detached headers: DIAGNijmegen/rse-panimg#47 on which files belong to an image; found from the code of the ledger key).

Archive of two different cases. Right: two results, each of its own voxels; voxels that change are segmented anew.
Wrong: the second case is given the first one's result.
"""
import json, os, shutil, subprocess, sys, tempfile
from pathlib import Path
ROOT = Path(os.environ.get("SEGMED_ROOT", os.getcwd()))
WORK = Path(tempfile.mkdtemp(prefix="bug"))
sys.path[:0] = [str(ROOT)]

def segmed(*args, cwd=None, timeout=540, env=None):
    """Run the real command; gives exit status and both streams."""
    extra = {"SEGMED_CACHE": str(WORK / "cache"), "OMP_NUM_THREADS": "2", **(env or {})}
    run = subprocess.run([str(ROOT / ".venv/bin/segmed"), *map(str, args)], cwd=cwd or WORK,
                         capture_output=True, text=True, errors="backslashreplace",
                         timeout=timeout, env={**os.environ, **extra}, encoding="utf-8")
    return run.returncode, run.stdout + run.stderr

def verdict(ok, expected, got):
    print(("PASS" if ok else "FAIL") + f" | expected: {expected} | got: {' '.join(str(got).split())[-900:]}")
    shutil.rmtree(WORK, ignore_errors=True)
    sys.exit(0 if ok else 1)

def package(folder, channels=1, names=("anterior", "posterior"), dims=3):
    """A small untrained network in a model package."""
    import torch
    from segmed.models import build_model
    from segmed.package import ModelPackage
    from segmed.plan.schema import (Augmentation, Inference, Intensity, NetworkPlan, Plan,
                                    Preprocessing, Recipe)
    from segmed.structures import Channel, LabelClass
    options = {"widths": [4, 8], "strides": [[1] * dims, [2] * dims], "deep_supervision": False}
    plan = Plan(name="tiny", spatial_dims=dims,
                channels=tuple(Channel(name=f"c{n}", modality="MR") for n in range(channels)),
                labels=tuple(LabelClass(name=n, value=v) for v, n in enumerate(names, 1)),
                preprocessing=Preprocessing(orientation="RAS" if dims == 3 else "",
                    spacing_mm=(1.0,) * dims, image_order=1,
                    intensity=(Intensity(scheme="zscore"),) * channels),
                patch_size=(16,) * dims,
                networks={"unet": NetworkPlan(options=options, learning_rate=1e-3)},
                recipe=Recipe(augmentation=Augmentation(rotation_deg=(0.0,))),
                inference=Inference(overlap=0.25))
    torch.manual_seed(0)
    net = build_model("unet", spatial_dims=dims, in_channels=channels,
                      num_classes=len(names) + 1, **options)
    return ModelPackage("unet", options, plan, net.state_dict(), {"note": "untrained"}).save(folder)
import nibabel as nib, numpy as np
package(WORK / "pkg")
def pair(folder, seed, kind):
    folder.mkdir(parents=True, exist_ok=True)
    a = np.random.default_rng(seed).integers(1, 900, (16, 14, 12)).astype(np.int16)
    if kind == "nifti":
        image = nib.Nifti1Pair(a, np.eye(4)); nib.save(image, folder / "image.img")
    else:
        (folder / "image.raw").write_bytes(a.tobytes(order="F"))
        (folder / "image.nhdr").write_text("NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 16 14 12\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
            "kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\ndata file: image.raw\n", encoding="utf-8")
report = {}
for kind in ("nifti", "nrrd"):
    arc, out = WORK / kind / "arc", WORK / kind / "out"
    pair(arc / "case1", 1, kind), pair(arc / "case2", 2, kind)
    code, text = segmed("archive", "segment", arc, "--model", WORK / "pkg", "-o", out, "--engine", "torch")
    rows = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    outputs = {r["output"] for r in rows if r["status"] == "done"}
    report[kind] = f"{len(rows)} outcomes, {len(outputs)} different outputs"
    contents = lambda: {o: (out / o).read_bytes() for o in outputs}
    before = contents()
    pair(arc / "case1", 3, kind), pair(arc / "case2", 4, kind)
    segmed("archive", "segment", arc, "--model", WORK / "pkg", "-o", out, "--engine", "torch")
    after = contents()  # outputs keep the names of their inputs; a changed input replaces its result
    report[kind] += ", changed voxels " + ("segmented anew" if all(after[o] != before[o] for o in outputs) else "not noticed")
verdict(all("2 different" in v and "anew" in v for v in report.values()), "2 outputs each, changes noticed", report)
