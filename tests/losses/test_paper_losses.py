"""The losses of U-Net, U-Net++ and UNet 3+: golden values, and MONAI's where it has them."""

import math

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ms_ssim

from segmed.losses import (
    BCEDiceLoss,
    HybridLoss,
    border_weights,
    list_losses,
    make_loss,
    ms_ssim,
    weight_map,
)
from segmed.losses.cgm import class_loss
from segmed.losses.ms_ssim import choose_scales
from segmed.losses.unet3plus import focal_loss, soft_iou_loss
from segmed.losses.unet_weight_map import class_weights
from segmed.models.gating import ScoredLogits


def two_class(probability):
    """Logits whose softmax gives the foreground this probability."""
    p = torch.as_tensor(probability)
    return torch.stack([(1 - p).log(), p.log()])[None]


# --- U-Net ------------------------------------------------------------------


def test_two_cells_four_pixels_apart_weigh_7_2615_at_the_midpoint():
    cells = np.zeros((1, 9), dtype=int)
    cells[0, 2], cells[0, 6] = 1, 2
    weights = border_weights(cells)
    assert weights[0, 4] == pytest.approx(7.2615, abs=5e-5)
    assert weights[0, 4] == pytest.approx(10 * math.exp(-16 / 50), rel=1e-6)
    target = torch.from_numpy((cells > 0).astype(np.int64))[None]
    balance = 9 / (2 * 7)  # two classes, seven of nine pixels are background
    assert weight_map(target, 2)[0, 0, 4].item() == pytest.approx(balance + 7.2615, abs=5e-5)


def test_one_cell_has_no_border_weight():
    cells = np.zeros((5, 5), dtype=int)
    cells[2, 2] = 1
    assert not border_weights(cells).any()
    assert not border_weights(np.zeros((3, 3), dtype=int)).any()


def test_second_nearest_cell_counts_in_any_order():
    cells = np.zeros((1, 12), dtype=int)
    cells[0, 0], cells[0, 4], cells[0, 11] = 3, 1, 2
    expected = 10 * math.exp(-((2 + 2) ** 2) / 50)
    assert border_weights(cells)[0, 2] == pytest.approx(expected, rel=1e-6)


def test_every_class_that_is_there_has_the_same_total_weight():
    target = torch.tensor([0, 0, 0, 1])
    assert class_weights(target, 3).tolist() == pytest.approx([4 / 6, 2.0, 0.0])


def test_weighted_ce_by_hand():
    target = torch.tensor([[[0, 0, 0, 1]]])
    logits = torch.zeros(1, 2, 1, 4)
    loss = make_loss("unet_weighted_ce", num_classes=2)
    assert loss(logits, target).item() == pytest.approx(math.log(2), rel=1e-6)


# --- U-Net++ ----------------------------------------------------------------


def test_bce_dice_by_hand():
    # p = 0.8 on the one true pixel, 0.2 on the other: BCE = -ln 0.8, Dice = 2 * 0.8 / (1 + 1)
    expected = 0.5 * -math.log(0.8) + 1 - 0.8
    logits = two_class([[0.8, 0.2]])
    target = torch.tensor([[[1, 0]]])
    assert BCEDiceLoss(2)(logits, target).item() == pytest.approx(expected, abs=1e-5)
    binary = logits[:, 1:] - logits[:, :1]
    assert BCEDiceLoss(1)(binary, target).item() == pytest.approx(expected, abs=1e-5)


def test_heads_of_unetpp_count_alike():
    target = torch.randint(0, 2, (1, 8, 8))
    heads = [torch.randn(1, 2, 8, 8) for _ in range(3)]
    loss = make_loss("unetpp_bce_dice", num_classes=2)
    expected = sum(loss(head, target) for head in heads) / 3
    assert loss(heads, target).item() == pytest.approx(expected.item(), rel=1e-6)


# --- UNet 3+ ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 180, 192), (2, 1, 176, 176)])
def test_ms_ssim_equals_monai(shape):
    torch.manual_seed(0)
    x, y = torch.rand(shape), torch.rand(shape)
    y = 0.6 * x + 0.4 * y
    theirs = compute_ms_ssim(x, y, spatial_dims=2)[:, 0]
    assert torch.allclose(ms_ssim(x, y), theirs, atol=1e-5)
    assert 0.1 < theirs.min() < 0.99


def test_ms_ssim_equals_monai_in_3d_with_fewer_scales():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 24, 26, 28)
    y = 0.5 * x + 0.5 * torch.rand_like(x)
    first, second = 0.0448, 0.2856
    weights = (first / (first + second), second / (first + second))
    theirs = compute_ms_ssim(x, y, spatial_dims=3, weights=weights)[:, 0]
    assert torch.allclose(ms_ssim(x, y), theirs, atol=1e-5)


@pytest.mark.parametrize(
    "shape", [(1, 1, 176, 176), (1, 2, 64, 64, 64), (1, 1, 5, 3), (1, 1, 1, 1)]
)
def test_ms_ssim_of_a_map_with_itself_is_one(shape):
    x = torch.rand(shape)
    assert ms_ssim(x, x).item() == pytest.approx(1.0, abs=1e-5)


def test_scales_and_window_shrink_with_the_patch():
    assert choose_scales((176, 200)) == ((11, 11), 5)
    assert choose_scales((175, 200)) == ((11, 11), 4)
    assert choose_scales((64, 64, 64)) == ((11, 11, 11), 3)
    assert choose_scales((10, 40)) == ((9, 11), 1)


def test_ms_ssim_of_opposite_maps_has_a_finite_gradient():
    x = torch.zeros(1, 1, 44, 44).requires_grad_()
    y = torch.ones(1, 1, 44, 44)
    ms_ssim(x, y).sum().backward()
    assert x.grad.isfinite().all()


def test_focal_loss_by_hand():
    log_true = torch.tensor([0.9, 0.5]).log()
    expected = (0.1**2 * -math.log(0.9) + 0.5**2 * -math.log(0.5)) / 2
    assert focal_loss(log_true).item() == pytest.approx(expected, rel=1e-5)


def test_iou_loss_by_hand():
    probs = two_class([[0.8, 0.2]]).exp()
    target = torch.tensor([[[1, 0]]])  # overlap 0.8, union 1 + 1 - 0.8
    assert soft_iou_loss(probs, target).item() == pytest.approx(1 - 0.8 / 1.2, abs=1e-5)


def test_hybrid_loss_is_the_sum_of_its_three_parts():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 24, 24)
    target = torch.randint(0, 3, (2, 24, 24))
    probs = logits.softmax(1)
    truth = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    log_true = logits.log_softmax(1).gather(1, target[:, None])
    expected = (
        focal_loss(log_true)
        + 1
        - ms_ssim(probs[:, 1:], truth[:, 1:]).mean()
        + soft_iou_loss(probs, target)
    )
    assert HybridLoss(3)(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


def test_one_and_two_classes_agree_in_the_hybrid_loss():
    torch.manual_seed(0)
    two = torch.randn(1, 2, 12, 12)
    target = torch.randint(0, 2, (1, 12, 12))
    one = two[:, 1:] - two[:, :1]
    expected = HybridLoss(2)(two, target).item()
    assert HybridLoss(1)(one, target).item() == pytest.approx(expected, rel=1e-5)


def test_hybrid_loss_of_two_empty_maps_is_finite_and_small():
    logits = torch.zeros(1, 2, 16, 16)
    logits[:, 0] = 50.0
    logits.requires_grad_()
    loss = HybridLoss(2)(logits, torch.zeros(1, 16, 16, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-4)
    assert logits.grad.isfinite().all()


def test_hybrid_loss_takes_64_cubed():
    target = torch.zeros(1, 64, 64, 64, dtype=torch.long)
    target[:, 20:40, 20:40, 20:40] = 1
    loss = HybridLoss(2)(torch.zeros(1, 2, 64, 64, 64), target)
    assert loss.isfinite()


def test_class_loss_by_hand():
    scores = torch.tensor([[2.0, -1.0]])
    target = torch.zeros(1, 4, 4, dtype=torch.long)  # only class 0 is there
    expected = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-1.0))) / 2
    assert class_loss(scores, target).item() == pytest.approx(expected, rel=1e-6)
    only = class_loss(torch.tensor([[2.0]]), target).item()
    assert only == pytest.approx(math.log(1 + math.exp(2.0)), rel=1e-6)


def test_scored_logits_add_the_class_loss():
    target = torch.randint(0, 2, (1, 8, 8))
    logits, scores = [torch.randn(1, 2, 8, 8)], torch.randn(1, 2)
    loss = make_loss("dice_ce", num_classes=2)
    expected = loss(logits, target) + class_loss(scores, target)
    assert loss(ScoredLogits(logits, scores), target).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", list_losses())
@pytest.mark.parametrize("shape", [(12, 14), (8, 9, 10)])
def test_every_loss_falls_along_its_gradient(name, shape):
    torch.manual_seed(0)
    target = torch.zeros(2, *shape, dtype=torch.long)
    target[:, 2:6, 3:7] = 1
    logits = torch.randn(2, 3, *shape, requires_grad=True)
    loss = make_loss(name, num_classes=3)
    before = loss(logits, target)
    before.backward()
    assert logits.grad.isfinite().all()
    step = 0.1 / logits.grad.abs().max()
    assert loss(logits.detach() - step * logits.grad, target) < before
