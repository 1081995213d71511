"""Dice plus cross-entropy, against MONAI and by hand."""

from typing import get_args

import pytest
import torch
from monai.losses import DiceCELoss as MonaiDiceCELoss

from segmed.errors import UsageError
from segmed.losses import DiceCELoss, head_weights, list_losses, make_loss
from segmed.losses.dice_ce import foreground_sums
from segmed.plan.schema import NetworkPlan


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 7)])
def test_dice_ce_equals_monai(include_background, batch_dice, shape):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, *shape)
    target = torch.randint(0, 4, (3, *shape))
    theirs = MonaiDiceCELoss(
        softmax=True,
        to_onehot_y=True,
        include_background=include_background,
        batch=batch_dice,
    )
    ours = DiceCELoss(4, include_background=include_background, batch_dice=batch_dice)
    assert ours(logits, target).item() == pytest.approx(
        theirs(logits, target[:, None]).item(), 1e-5
    )


def reference_sums(flat, index):
    """Probability on each class and its size, by one-hot masks."""
    hot = torch.nn.functional.one_hot(index, flat.shape[1]).movedim(-1, 1).to(flat.dtype)
    return (flat * hot).sum(2), hot.sum(2)


@pytest.mark.parametrize("classes", [2, 7, 41])
def test_sums_over_classes_and_their_gradients_equal_one_hot_masks(classes):
    torch.manual_seed(1)
    logits = torch.randn(2, classes, 11 * 13, requires_grad=True)
    target = torch.randint(0, classes, (2, 11 * 13))
    weights = torch.rand(2, classes)
    found = []
    for sums in (foreground_sums, reference_sums):
        overlap, size = sums(logits.softmax(1), target)
        (gradient,) = torch.autograd.grad((overlap * weights).sum(), logits)
        found.append((overlap, size, gradient))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "part of a larger map"])
@pytest.mark.parametrize("options", [{}, {"include_background": True}, {"batch_dice": False}])
@pytest.mark.parametrize("shape", [(3, 70, 90), (2, 17, 20, 24)])
def test_the_loss_of_many_classes_and_its_gradient_equal_those_of_whole_maps(
    monkeypatch, layout, options, shape
):
    torch.manual_seed(2)
    cases, *spatial = shape
    target = torch.randint(0, 60, shape)
    target[0] = 0  # a case without structures
    values = 8 * torch.randn(cases, 61, *spatial)
    if layout == "channels last":
        last = torch.channels_last if len(spatial) == 2 else torch.channels_last_3d
        values = values.contiguous(memory_format=last)
    found = []
    for many in (2, 1000):
        monkeypatch.setattr("segmed.losses.softmax_sums.MANY_CLASSES", many)
        logits = values.clone().requires_grad_()
        classes = logits[:, :60] if layout == "part of a larger map" else logits
        value = DiceCELoss(classes.shape[1], **options)(classes, target)
        (gradient,) = torch.autograd.grad(3 * value, logits)
        found.append((value, gradient))
    torch.testing.assert_close(*(value for value, _ in found), rtol=1e-6, atol=0)
    torch.testing.assert_close(*(gradient for _, gradient in found), rtol=1e-4, atol=1e-9)


def test_sums_of_a_softmax_keep_the_layout_of_the_logits_and_are_differentiated_once():
    last = torch.randn(1, 12, 8, 8).contiguous(memory_format=torch.channels_last)
    logits = (2 * last.requires_grad_()).detach().requires_grad_()
    value = DiceCELoss(12)(logits, torch.randint(0, 12, (1, 8, 8)))
    value.backward(retain_graph=True)
    assert logits.grad.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="once"):
        value.backward()


def backward_steps(value):
    """Names of all steps of a backward pass."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        step = waiting.pop()
        if step is not None and step not in seen:
            seen.add(step)
            waiting += [before for before, _ in step.next_functions]
    return [step.name() for step in seen]


@pytest.mark.parametrize("name", [n for n in list_losses() if n != "unet_weighted_ce"])
def test_no_class_has_a_gradient_as_large_as_that_of_all_classes(name):
    logits = [torch.randn(1, 12, 24, 24, requires_grad=True) for _ in range(2)]
    loss = make_loss(name, num_classes=12)(logits, torch.randint(0, 12, (1, 24, 24)))
    names = backward_steps(loss)
    if name == "dice_ce":
        assert any(step.startswith("_SoftmaxSums") for step in names)
        return
    assert any(step.startswith("UnbindBackward") for step in names)
    assert not any(step.startswith("SelectBackward") for step in names)


def test_certain_and_right_logits_cost_nothing_and_wrong_ones_cost_dearly():
    target = torch.tensor([[[0, 1], [1, 2]]])
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 40.0
    loss = make_loss("dice_ce", num_classes=3)
    assert loss(right, target).item() == pytest.approx(0.0, abs=1e-5)
    assert loss(-right, target).item() > 20


def test_an_absent_class_counts_as_perfect():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 60.0
    assert make_loss("dice_ce", num_classes=2)(logits, target).item() == pytest.approx(0, abs=1e-4)


def test_heads_are_weighted_finest_first():
    assert head_weights(3) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    target = torch.randint(0, 2, (1, 6, 6))
    heads = [torch.randn(1, 2, 6, 6) for _ in range(2)]
    one = make_loss("dice_ce", num_classes=2)
    both = make_loss("dice_ce", num_classes=2, deep_supervision_weights=(3, 1))
    expected = 0.75 * one(heads[0], target) + 0.25 * one(heads[1], target)
    assert both(heads, target).item() == pytest.approx(expected.item(), 1e-6)


def test_as_many_weights_as_heads_are_needed():
    loss = make_loss("dice_ce", num_classes=2, deep_supervision_weights=(1, 1))
    heads = [torch.randn(1, 2, 4, 4)] * 3
    with pytest.raises(UsageError, match="3 heads"):
        loss(heads, torch.zeros(1, 4, 4, dtype=torch.long))


def test_an_unknown_loss_lists_the_known_ones():
    with pytest.raises(UsageError, match="dice_ce"):
        make_loss("focal", num_classes=2)


def test_every_loss_of_a_plan_can_be_made():
    named = get_args(NetworkPlan.model_fields["loss"].annotation)
    assert set(named) == set(list_losses())
