"""Each architecture learns from real images: two epochs, falling loss."""

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from segmed.losses import make_loss
from segmed.models import build_model, list_models

pytestmark = pytest.mark.slow

STEPS = 12
"""Steps an epoch."""


def scaled(image):
    image = np.asarray(image, dtype=np.float32)
    return (image - image.mean()) / (image.std() + 1e-6)


def isbi(folder):
    cases = []
    for path in sorted((folder / "images").glob("*"))[:4]:
        label = folder / "labels" / path.name
        cases.append((scaled(Image.open(path))[None], np.asarray(Image.open(label)) == 0))
    return cases


def chase(folder):
    cases = []
    for path in sorted((folder / "images_and_labels").glob("*.jpg"))[:4]:
        label = next((folder / "images_and_labels").glob(f"{path.stem}_1st*"))
        image = scaled(Image.open(path).convert("RGB")).transpose(2, 0, 1)
        cases.append((image, np.asarray(Image.open(label).convert("L")) > 127))
    return cases


def hippocampus(folder):
    cases = []
    for path in sorted((folder / "imagesTr").glob("hippo*.nii.gz"))[:6]:
        image = nibabel.load(path).get_fdata()
        label = nibabel.load(folder / "labelsTr" / path.name).get_fdata()
        cases.append((scaled(image)[None], label))
    return cases


SETS = {"isbi2012": (isbi, (96, 96), 2), "chase_db1": (chase, (96, 96), 2)}
SETS["hippocampus"] = (hippocampus, (32, 40, 32), 3)


def crops(cases, size, rng, count=2):
    images, labels = [], []
    for _ in range(count):
        image, label = cases[rng.integers(len(cases))]
        begin = [
            int(rng.integers(0, max(1, n - s + 1))) for n, s in zip(label.shape, size, strict=True)
        ]
        window = tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))
        pad = [(0, max(0, s - n)) for n, s in zip(label.shape, size, strict=True)]
        images.append(np.pad(image[(slice(None), *window)], [(0, 0), *pad]))
        labels.append(np.pad(label[window], pad))
    return (
        torch.from_numpy(np.stack(images)).float(),
        torch.from_numpy(np.stack(labels).astype(np.int64)),
    )


@pytest.mark.parametrize("set_name", list(SETS))
@pytest.mark.parametrize("name", list_models())
def test_two_epochs_on_real_images_lower_the_loss(name, set_name, shared_data):
    read, size, num_classes = SETS[set_name]
    cases = read(shared_data(set_name))
    assert len(cases) >= 4
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build_model(
        name,
        spatial_dims=len(size),
        in_channels=cases[0][0].shape[0],
        num_classes=num_classes,
        widths=(8, 16, 32, 64),
        deep_supervision=name in ("unetpp", "unet3plus"),
        **{"deeplabv3plus": {"aspp_width": 32}, "unet3plus": {"cat_channels": 4}}.get(name, {}),
    ).train()
    loss_of = make_loss("dice_ce", num_classes=num_classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    epochs = []
    for _ in range(2):
        losses = []
        for _ in range(STEPS):
            image, label = crops(cases, size, rng)
            optimizer.zero_grad()
            loss = loss_of(model(image), label)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epochs.append(float(np.mean(losses)))
    assert np.isfinite(epochs).all()
    assert epochs[1] < 0.97 * epochs[0], epochs
