"""Validation meets each kind of case by windows, and scores what the network says of each voxel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segmed.encoding import LabelEncoding
from segmed.plan import Plan
from segmed.structures import LabelClass
from segmed.training import choose_device
from segmed.training.sampling import TrainingCase
from segmed.training.validation import mean_entropy, predict_probs, validate


class Reader(nn.Module):
    """Says of each voxel the class that its intensity is."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.batches: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(tuple(image.shape))
        classes = torch.arange(self.classes).view(1, -1, *[1] * (image.ndim - 2))
        return 30.0 * (image == classes).float()


def case_of(shape: tuple[int, ...]) -> TrainingCase:
    label = (torch.arange(torch.Size(shape).numel()).reshape(shape) // 7 % 3).to(torch.uint8)
    return TrainingCase.of("a", label[None].float(), label)


@pytest.mark.parametrize(
    ("patch", "slice_axis", "shape"),
    [
        ((8, 8, 8), None, (20, 17, 9)),
        ((16, 16, 16), None, (10, 9, 12)),
        ((8, 8), None, (21, 13)),
        ((8, 8), 1, (12, 5, 20)),
    ],
)
def test_every_kind_of_case_is_covered_by_windows(
    plan: Plan, patch: tuple[int, ...], slice_axis: int | None, shape: tuple[int, ...]
) -> None:
    dims = len(patch)
    changed = plan.model_copy(
        update={"patch_size": patch, "slice_axis": slice_axis, "spatial_dims": dims}
    )
    network = Reader(changed.num_classes)
    found = validate(network, [case_of(shape)], changed, choose_device("cpu"))
    assert found.dice == {item.name: 1.0 for item in plan.labels}
    assert found.loss < 1e-3
    assert {size[2:] for size in network.batches} == {patch}


def test_a_wrong_voxel_lowers_the_score_and_a_missed_label_counts_nothing(plan: Plan) -> None:
    case = case_of((12, 12, 12))
    label = case.label.clone()
    label[case.label == 2] = 1
    wrong = TrainingCase.of("a", case.image, label)
    dice = validate(Reader(3), [wrong], plan, choose_device("cpu")).dice
    first, second = (item.name for item in plan.labels)
    assert 0.5 < dice[first] < 0.9
    assert dice[second] == 0.0


def test_the_sample_is_scored_apart_from_the_others(plan: Plan) -> None:
    right = case_of((12, 12, 12))
    nothing = TrainingCase.of("b", torch.zeros_like(right.image), right.label)
    found = validate(Reader(3), [right, nothing, right], plan, choose_device("cpu"), sample=[0, 2])
    assert found.sample_dice == 1.0
    assert all(value == pytest.approx(2 / 3) for value in found.dice.values())


def test_one_small_volume_goes_through_the_network_as_two_with_the_same_result(plan: Plan) -> None:
    torch.manual_seed(0)
    network = nn.Conv3d(1, plan.num_classes, 3, padding=1)
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    case = case_of(plan.patch_size)
    with torch.inference_mode():
        found = predict_probs(network, case.image, plan, choose_device("cpu"))
        expected = network(case.image[None]).softmax(dim=1)[0]
    assert seen[0] == 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


NESTED = (
    LabelClass(name="whole", value=1, region=(1, 2)),
    LabelClass(name="core", value=2),
)


def test_entropy_of_regions_and_of_annotated_voxels_by_hand() -> None:
    target = torch.tensor([0, 1, 2, 3])
    probs = torch.tensor([[0.2, 0.6, 0.9, 0.5], [0.1, 0.3, 0.8, 0.5]])
    regions = mean_entropy(probs, target, LabelEncoding(NESTED, ignore_value=9))
    logs = torch.tensor([0.8, 0.6, 0.9, 0.9, 0.7, 0.8]).log()
    assert regions == pytest.approx(-logs.mean().item())
    classes = torch.cat([1 - probs.sum(0, keepdim=True), probs])
    plain = LabelEncoding((NESTED[1], LabelClass(name="b", value=4)), ignore_value=9)
    right = torch.tensor([0.7, 0.6, 0.8]).log()
    assert mean_entropy(classes, target, plain) == pytest.approx(-right.mean().item())
