"""Label maps that nnU-Net 2.8.1 itself gave for networks of drawn weights.

Run by a Python with nnunetv2, this file writes them anew:

    OMP_NUM_THREADS=1 python tests/nnunet_golden.py

nnU-Net accumulates windows in float16; here it is made to do so in float32, as segmed does.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
GOLDEN = HERE / "nnunet" / "golden"
SAMPLE = REPOSITORY / "data_manifests/hippocampus_sample/images/hippocampus_001.nii.gz"


@dataclass(frozen=True)
class Golden:
    """A network of drawn weights and how it is used.

    Attributes:
        plans: Arguments of `plans_of`.
        folder: Arguments of `write_folder`.
        channels: Channels of the image.
        mirrors: Average over mirror images.
    """

    plans: dict[str, Any]
    folder: dict[str, Any] = field(default_factory=dict)
    channels: int = 1
    mirrors: bool = True


def cases() -> dict[str, Golden]:
    """The cases by the name of their file."""
    from nnunet_folders import REGIONS  # noqa: PLC0415 - it loads PyTorch

    two = ("ZScoreNormalization", "ZScoreNormalization")
    return {
        "plain_3d_two_folds": Golden(
            {"spacing": (1.2, 0.9, 1.1), "patch": (16, 20, 16)}, {"folds": ("0", "1")}
        ),
        "residual_3d_regions_two_channels": Golden(
            {
                "residual": True,
                "spacing": (3.8, 1.1, 1.0),
                "patch": (8, 20, 16),
                "schemes": two,
                "masked": True,
                "transpose": (1, 0, 2),
            },
            {"labels": REGIONS, "folds": ("2",)},
            channels=2,
        ),
        "plain_2d_ct": Golden(
            {
                "dims": 2,
                "spacing": (0.8, 1.3),
                "patch": (32, 24),
                "schemes": ("CTNormalization",),
            },
            {"mirror_axes": (0, 1)},
        ),
        "residual_2d_unmirrored": Golden(
            {"dims": 2, "residual": True, "spacing": (1.0, 1.0), "patch": (24, 24)},
            {"mirror_axes": None},
            mirrors=False,
        ),
    }


def write_images(folder: Path) -> tuple[Path, Path]:
    """Write the two channels; a part of the image is 0 in both."""
    found = nib.load(SAMPLE)
    voxels = np.asarray(found.dataobj).astype(np.float32)
    voxels[:3] = 0.0
    voxels[:, -4:] = 0.0
    other = np.sqrt(np.abs(voxels))
    other[:, :, :2] = 0.0
    names = [folder / "image_0000.nii.gz", folder / "image_0001.nii.gz"]
    for name, content in zip(names, (voxels, other), strict=True):
        nib.save(nib.Nifti1Image(content, found.affine), name)
    return names[0], names[1]


def predictor_in_float32() -> Any:
    """nnU-Net's predictor whose windows are accumulated in float32."""
    from nnunetv2.inference import predict_from_raw_data as module  # noqa: PLC0415 - heavy, or only there for this test

    source = inspect.getsource(module).replace("dtype=torch.half", "dtype=torch.float32")
    source = source.replace(
        "value_scaling_factor=10,", "value_scaling_factor=10, dtype=torch.float32,"
    )
    names: dict[str, Any] = {"__name__": "nnunet_in_float32"}
    exec(compile(source, "nnunet_in_float32", "exec"), names)
    return names["nnUNetPredictor"]


def predicted_by_nnunet(kind: Any, folder: Path, files: list[Path], *, mirrors: bool) -> Any:
    """Labels in the order of the file's axes."""
    import torch  # noqa: PLC0415 - heavy, or only there for this test

    runner = kind(
        use_mirroring=mirrors,
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        verbose=False,
        allow_tqdm=False,
    )
    folds = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    runner.initialize_from_trained_model_folder(str(folder), use_folds=[int(f) for f in folds])
    reader = runner.plans_manager.image_reader_writer_class()
    image, properties = reader.read_images([str(file) for file in files])
    label = runner.predict_single_npy_array(image, properties, None, None, False)
    return label.transpose(2, 1, 0).astype(np.uint8)


def main() -> None:
    """Write all files anew."""
    sys.path[:0] = [str(HERE), str(REPOSITORY)]
    from nnunet_folders import plans_of, write_folder  # noqa: PLC0415 - heavy, or only there for this test

    GOLDEN.mkdir(exist_ok=True)
    kind = predictor_in_float32()
    for name, case in cases().items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = write_folder(Path(scratch) / "model", plans_of(**case.plans), **case.folder)
            files = list(write_images(Path(scratch)))[: case.channels]
            label = predicted_by_nnunet(kind, folder, files, mirrors=case.mirrors)
        np.savez_compressed(GOLDEN / f"{name}.npz", label=label)
        print(name, label.shape, np.bincount(label.ravel()))


if __name__ == "__main__":
    main()
