"""The losses as MONAI's: target shapes, reduction and background."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss as MonaiDeepSupervisionLoss
from torch.nn.modules.loss import _Loss

from segmed.errors import UsageError
from segmed.losses import (
    BCEDiceLoss,
    DiceCELoss,
    HybridLoss,
    WeightedCELoss,
    list_losses,
    make_loss,
)

CASEWISE = [
    BCEDiceLoss,
    HybridLoss,
    WeightedCELoss,
    lambda classes, **options: DiceCELoss(classes, batch_dice=False, **options),
]


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 3, 12, 14), torch.randint(0, 3, (3, 12, 14))


@pytest.mark.parametrize("name", list_losses())
def test_targets_with_monais_channel_axis_give_the_same_value(name) -> None:
    logits, target = pair()
    loss = make_loss(name, num_classes=3)
    assert isinstance(loss, _Loss)
    assert isinstance(loss.loss, _Loss)
    plain = loss(logits, target)
    for other in (target[:, None], MetaTensor(target[:, None]), target[:, None].float()):
        assert torch.equal(loss(MetaTensor(logits), other), plain)
    with pytest.raises(UsageError, match="one-hot"):
        loss(logits, torch.nn.functional.one_hot(target, 3).movedim(-1, 1))


@pytest.mark.parametrize("make", CASEWISE)
def test_sum_and_none_are_of_the_values_of_single_cases(make) -> None:
    logits, target = pair()
    single = torch.stack([make(3)(logits[n : n + 1], target[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(make(3, reduction="none")(logits, target), single)
    torch.testing.assert_close(make(3, reduction="sum")(logits, target), single.sum())
    torch.testing.assert_close(make(3)(logits, target), single.mean())


def test_heads_of_deep_supervision_keep_the_reduction() -> None:
    logits, target = pair()
    loss = make_loss("unetpp_bce_dice", num_classes=3, reduction="none")
    torch.testing.assert_close(loss([logits, logits], target), loss(logits, target))
    assert loss([logits, logits], target).shape == (3,)


def test_monais_deep_supervision_takes_our_losses() -> None:
    logits, target = pair()
    ours = make_loss("dice_ce", num_classes=3)
    theirs = MonaiDeepSupervisionLoss(DiceCELoss(3), weights=[2 / 3, 1 / 3])
    heads = [logits, logits.flip(0)]
    torch.testing.assert_close(theirs(heads, target[:, None].float()), ours(heads, target))


def test_options_without_a_meaning_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="batch_dice=False"):
        DiceCELoss(3, reduction="sum")
    with pytest.raises(UsageError, match="batch"):
        make_loss("dice_ce", num_classes=3, reduction="none")
    with pytest.raises(UsageError, match="median"):
        HybridLoss(3, reduction="median")
    for loss in (BCEDiceLoss, HybridLoss):
        with pytest.raises(UsageError, match="include_background=True"):
            loss(3, include_background=True)
        loss(3, include_background=False)
    with pytest.raises(UsageError, match="include_background=False"):
        make_loss("unet_weighted_ce", num_classes=3, include_background=False)
    logits, target = pair()
    with_background = make_loss("dice_ce", num_classes=3, include_background=True)
    assert with_background(logits, target) != make_loss("dice_ce", num_classes=3)(logits, target)
    with pytest.raises(UsageError, match="integers"):
        DiceCELoss(3)(logits, target + 0.5)


@pytest.mark.parametrize("index", [3, -1, 255])
@pytest.mark.parametrize("name", list_losses())
def test_class_indices_of_no_class_are_refused_by_value(name, index) -> None:
    logits, target = pair()
    target[1, 2, 3] = index
    with pytest.raises(UsageError, match=rf"class index {index}; this loss takes 0 to 2"):
        make_loss(name, num_classes=3)(logits, target)


@pytest.mark.parametrize("name", ["unetpp_bce_dice", "unet3plus_hybrid"])
def test_a_sigmoid_takes_0_and_1(name) -> None:
    logits, target = pair()
    loss = make_loss(name, num_classes=2)
    assert loss(logits[:, :1], target.clamp(max=1)).isfinite()
    with pytest.raises(UsageError, match="class index 2; this loss takes 0 to 1"):
        loss(logits[:, :1], target)


@pytest.mark.parametrize("name", ["dice_ce", "unet_weighted_ce"])
def test_one_channel_is_refused_where_the_loss_has_no_sigmoid(name) -> None:
    logits, target = pair()
    with pytest.raises(UsageError, match="1 channels, this loss is of 2 classes"):
        make_loss(name, num_classes=2)(logits[:, :1], torch.zeros_like(target))
