"""An archive on a read-only mount, with one volume twice under other names and one as a link (git-annex and DataLad sets link every file).

Right: nothing is written below the archive; equal volumes are segmented once; links are followed.
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

def nifti(path, shape=(16, 14, 12), seed=0, affine=None, array=None):
    """A small NIfTI file of noise, or of the array given."""
    import nibabel as nib, numpy as np
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path

def series(folder, n=8, size=16, seed=0, study="1", number="1", patient="P1", mutate=None, **tags):
    """A small synthetic MR series, one file a slice."""
    import numpy as np, pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian
    folder.mkdir(parents=True, exist_ok=True)
    rng, base, files = np.random.default_rng(seed), "1.2.826.0.1.3680043.10.999", []
    for k in range(n):
        d = Dataset()
        d.SOPClassUID, d.Modality = "1.2.840.10008.5.1.4.1.1.4", "MR"
        d.PatientID, d.PatientName, d.PatientBirthDate, d.PatientSex = patient, patient, "", ""
        d.StudyInstanceUID, d.SeriesInstanceUID = f"{base}.{study}", f"{base}.{study}.{number}"
        d.SOPInstanceUID = f"{base}.{study}.{number}.{k + 1}"
        d.FrameOfReferenceUID = f"{base}.{study}.99"
        d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber = "20240101", "120000", "1", ""
        d.ReferringPhysicianName, d.SeriesDescription = "", f"s{number}"
        d.SeriesNumber, d.InstanceNumber, d.ImageType = 1, k + 1, ["ORIGINAL", "PRIMARY"]
        d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, float(k)], [1, 0, 0, 0, 1, 0]
        d.PixelSpacing, d.SliceThickness = [1, 1], 1
        d.Rows = d.Columns = size
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation = 15, 0
        d.PixelData = rng.integers(0, 900, (size, size)).astype("<u2").tobytes()
        for name, value in tags.items():
            setattr(d, name, value)
        if mutate:
            mutate(d, k)
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
        d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
        path = folder / f"{k:03d}.dcm"
        pydicom.dcmwrite(path, d, enforce_file_format=True)
        files.append(path)
    return files
package(WORK / "pkg")
nifti(WORK / "arc/a/scan.nii.gz", seed=1); shutil.copytree(WORK / "arc/a", WORK / "arc/copy")
series(WORK / "arc/s1", n=8)
(WORK / "store").mkdir(); nifti(WORK / "store/real.nii.gz", seed=5); (WORK / "arc/linked.nii.gz").symlink_to(WORK / "store/real.nii.gz")
command = f"mount --bind {WORK}/arc {WORK}/arc && mount -o remount,ro,bind {WORK}/arc && exec {ROOT}/.venv/bin/segmed archive segment {WORK}/arc --model {WORK}/pkg -o {WORK}/out --engine torch"
run = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, cwd=WORK, encoding="utf-8")
rows = json.loads((WORK / "out/outcomes.json").read_text(encoding="utf-8")) if (WORK / "out/outcomes.json").exists() else []
made = len(list((WORK / "out/segmentations").rglob("*.nii.gz")))
verdict(run.returncode == 0 and len(rows) == 4 and made == 3 and all(r["status"] == "done" for r in rows), "4 outcomes, 3 files", f"status {run.returncode}, {len(rows)} outcomes, {made} files: {(run.stdout + run.stderr)[-200:]}")
