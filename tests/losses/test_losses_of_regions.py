"""Losses of regions, against values worked out by hand, and of maps with unannotated voxels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from segmed.encoding import LabelEncoding
from segmed.errors import UsageError
from segmed.losses import list_losses, make_loss, ms_ssim
from segmed.losses.cgm import class_loss
from segmed.losses.voxel_terms import VoxelReader
from segmed.models.gating import ScoredLogits
from segmed.structures import LabelClass

WHOLE = LabelClass(name="whole", value=1, region=(1, 2, 3))
CORE = LabelClass(name="core", value=2, region=(2, 3))
ENHANCING = LabelClass(name="enhancing", value=3)
NESTED = LabelEncoding((WHOLE, CORE, ENHANCING))
NESTED_IGNORING = LabelEncoding((WHOLE, CORE, ENHANCING), ignore_value=9)
PLAIN = LabelEncoding((LabelClass(name="a", value=4), LabelClass(name="b", value=7)))
IGNORING = LabelEncoding(PLAIN.labels, ignore_value=255)

MASKS = {0: (0, 0, 0), 1: (1, 0, 0), 2: (1, 1, 0), 3: (1, 1, 1)}
"""Regions that hold each class index."""


def batch(encoding: LabelEncoding, size: tuple[int, ...] = (12, 10)) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    logits = torch.randn(2, encoding.num_channels, *size)
    return logits, torch.randint(0, len(encoding.stored_values), (2, *size))


def loss_of(name: str, encoding: LabelEncoding):
    return make_loss(name, num_classes=encoding.num_channels, encoding=encoding)


def test_dice_ce_of_nested_regions_by_hand() -> None:
    target = torch.tensor([[[0, 1, 2, 3]]])
    probs = torch.tensor([[0.2, 0.8, 0.9, 0.6], [0.1, 0.3, 0.7, 0.9], [0.4, 0.2, 0.1, 0.8]])
    logits = torch.logit(probs)[None, :, None]
    # Dice: 2 * sum of p within / (sum of p + voxels), for whole (3), core (2), enhancing (1).
    dice = [2 * 2.3 / (2.5 + 3), 2 * 1.6 / (2.0 + 2), 2 * 0.8 / (1.5 + 1)]
    right = [0.8, 0.8, 0.9, 0.6, 0.9, 0.7, 0.7, 0.9, 0.6, 0.8, 0.9, 0.8]
    entropy = -sum(map(math.log, right)) / 12
    value = loss_of("dice_ce", NESTED)(logits, target).item()
    assert value == pytest.approx(1 - sum(dice) / 3 + entropy, abs=1e-5)
    halved = loss_of("unetpp_bce_dice", NESTED)(logits, target).item()
    assert halved == pytest.approx(1 - sum(dice) / 3 + entropy / 2, abs=1e-5)


def test_hybrid_loss_of_nested_regions_by_its_parts() -> None:
    logits, target = batch(NESTED)
    truth = torch.tensor([MASKS[int(one)] for one in target.flatten()], dtype=torch.float32)
    truth = truth.view(*target.shape, 3).movedim(-1, 1)
    probs = logits.sigmoid()
    right = torch.where(truth > 0, probs, 1 - probs)
    focal = (-((1 - right) ** 2) * right.log()).mean()
    common = (probs * truth).flatten(2).sum(2)
    union = probs.flatten(2).sum(2) + truth.flatten(2).sum(2) - common
    expected = focal + 1 - ms_ssim(probs, truth).mean() + 1 - (common / union).mean()
    assert loss_of("unet3plus_hybrid", NESTED)(logits, target).item() == pytest.approx(
        expected.item(), abs=1e-5
    )


@pytest.mark.parametrize("name", list_losses())
def test_certain_and_right_regions_cost_nothing(name: str) -> None:
    within = LabelClass(name="core", value=2)
    encoding = LabelEncoding((LabelClass(name="whole", value=1, region=(1, 2)), within))
    logits, target = batch(encoding)
    both = loss_of(name, encoding)(logits, target)
    right = torch.stack([(target > 0) * 40.0 - 20, (target == 2) * 40.0 - 20], 1)
    assert loss_of(name, encoding)(right, target) < 0.02 < both


@pytest.mark.parametrize("name", list_losses())
@pytest.mark.parametrize("encoding", [IGNORING, NESTED_IGNORING])
def test_unannotated_voxels_have_a_gradient_of_exactly_zero(name, encoding) -> None:
    logits, target = batch(encoding)
    ignored = target == encoding.ignore_index
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(name, encoding)(logits, target), logits)
    assert torch.isfinite(gradient).all()
    assert (gradient.movedim(1, -1)[ignored] == 0).all()
    assert (gradient.movedim(1, -1)[~ignored] != 0).any(-1).all()
    other = torch.where(ignored.unsqueeze(1), logits.detach() * 7 - 3, logits.detach())
    loss = loss_of(name, encoding)
    assert torch.equal(loss(other, target), loss(logits.detach(), target))


@pytest.mark.parametrize("name", ["dice_ce", "unetpp_bce_dice", "unet_weighted_ce"])
def test_unannotated_voxels_count_as_if_they_were_cut_out(name: str) -> None:
    logits, target = batch(PLAIN)
    covered = target.clone()
    covered[:, 6:] = IGNORING.ignore_index
    cut = make_loss(name, num_classes=3)(logits[:, :, :6], target[:, :6])
    torch.testing.assert_close(loss_of(name, IGNORING)(logits, covered), cut)
    everywhere = loss_of(name, IGNORING)(logits, target)
    torch.testing.assert_close(everywhere, make_loss(name, num_classes=3)(logits, target))


@pytest.mark.parametrize("name", list_losses())
@pytest.mark.parametrize("encoding", [IGNORING, NESTED_IGNORING])
def test_a_batch_without_any_annotation_teaches_nothing(name, encoding) -> None:
    logits, target = batch(encoding)
    logits.requires_grad_()
    value = loss_of(name, encoding)(logits, torch.full_like(target, encoding.ignore_index))
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value)
    assert not gradient.any()


def test_plain_labels_take_the_loss_that_they_always_had() -> None:
    logits, target = batch(PLAIN)
    for name in list_losses():
        before = make_loss(name, num_classes=3)(logits, target)
        assert torch.equal(loss_of(name, PLAIN)(logits, target), before)


def test_class_scores_of_regions_and_of_cases_that_are_annotated_in_part() -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.2, -0.4]])
    target = torch.tensor([[0, 1, 2], [0, 1, 4]])  # whole and core; whole, the rest not known
    one = torch.nn.functional.softplus
    known = [one(-scores[0, 0]), one(-scores[0, 1]), one(scores[0, 2]), one(-scores[1, 0])]
    reader = VoxelReader(NESTED_IGNORING)
    expected = torch.stack(known).mean()
    torch.testing.assert_close(class_loss(scores, target, reader), expected)
    logits = torch.randn(2, 3, 3)
    loss = loss_of("dice_ce", NESTED_IGNORING)
    whole = loss(ScoredLogits([logits], scores), target)
    torch.testing.assert_close(whole, loss(logits, target) + expected)


def test_background_is_no_region() -> None:
    with pytest.raises(UsageError, match="include_background=True is not defined for regions"):
        make_loss("dice_ce", num_classes=3, include_background=True, encoding=NESTED)


@pytest.mark.parametrize("encoding", [IGNORING, NESTED_IGNORING])
def test_backward_steps_do_not_multiply_with_the_heads_or_wait_for_the_device(encoding) -> None:
    """Shapes depend on nothing but the batch's, as a captured graph asks for."""
    logits, target = batch(encoding)
    with torch.device("meta"):
        reader = VoxelReader(encoding)
    terms = reader(logits.to("meta"), target.to("meta"))
    for value in (terms.mean(terms.entropy), *terms.sums(), terms.truth()):
        assert value.is_meta


@pytest.mark.parametrize("encoding", [NESTED, NESTED_IGNORING, IGNORING])
@pytest.mark.parametrize("name", list_losses())
def test_values_of_the_file_and_negative_indices_are_refused(name, encoding) -> None:
    logits, target = batch(encoding)
    most = len(encoding.stored_values) - 1
    for index in (most + 1, -1, 255):
        target[0, 0, 0] = index
        with pytest.raises(UsageError, match=rf"class index {index}; this loss takes 0 to {most}"):
            loss_of(name, encoding)(logits, target)
