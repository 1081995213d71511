"""Features by hand and against a whole-volume computation; agreement against pairwise Dice."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
import torch

from segmed.encoding import LabelEncoding
from segmed.quality.agreement import MemberAgreement
from segmed.quality.features import FeatureSums
from segmed.structures import LabelClass
from segmed.transforms.inverse import Slab

ENCODING = LabelEncoding((LabelClass(name="one", value=1), LabelClass(name="two", value=5)))
REGIONS = LabelEncoding(
    (
        LabelClass(name="whole", value=1, region=(1, 2)),
        LabelClass(name="core", value=2, region=(2,)),
    )
)


def softmax_map(seed: int, shape: tuple[int, ...] = (9, 7, 8)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4.0 * torch.randn((3, *shape), generator=generator)).softmax(dim=0)


def whole(probs: torch.Tensor, image: torch.Tensor, encoding: LabelEncoding = ENCODING):
    sums = FeatureSums(encoding, 0.002)
    sums.take(probs, image, 0)
    return sums.features()


def test_two_voxels_by_hand() -> None:
    probs = torch.tensor([[0.2, 0.7, 1.0], [0.6, 0.3, 0.0], [0.2, 0.0, 0.0]]).view(3, 3, 1, 1)
    image = torch.tensor([5.0, 1.0, 9.0]).view(1, 3, 1, 1)
    found = whole(probs, image)
    assert found["two"] == {}
    one = found["one"]
    assert one["expected_dice"] == pytest.approx(2 * 0.6 / (1 + 0.9))
    assert one["spread"] == pytest.approx((0.24 + 0.21) / 0.9)
    assert one["excess"] == pytest.approx(log(0.9))
    assert one["entropy"] == pytest.approx(-(0.6 * log(0.6) + 0.4 * log(0.2)) / log(3))
    assert one["log_volume"] == pytest.approx(log(0.002))
    assert one["log_surface"] == pytest.approx(log(2.0))  # one face to the background, plus one
    assert (one["mean:0"], one["std:0"]) == (5.0, 0.0)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_slabs_give_what_the_whole_gives(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    probs, image = softmax_map(1), torch.randn(2, 9, 7, 8)
    monkeypatch.setattr("segmed.quality.features.CHUNK_BYTES", 2 * 3 * 4 * 56)
    sums, size = FeatureSums(ENCODING, 0.002), probs.shape[1 + dim]
    slabs = [
        Slab(low, probs.narrow(1 + dim, low, min(4, size - low)).clone())
        for low in range(0, size, 4)
    ]
    passed = list(sums.watch(iter(slabs), image, dim))
    assert [slab.start for slab in passed] == [slab.start for slab in slabs]
    expected = whole(probs, image)
    for label, features in sums.features().items():
        assert features == pytest.approx(expected[label]), label


def test_logits_give_what_their_probabilities_give() -> None:
    logits, image = 3.0 * torch.randn(3, 6, 6, 6), torch.randn(1, 6, 6, 6)
    sums = FeatureSums(ENCODING, 0.002, averages_logits=True)
    sums.take(logits, image, 0)
    expected = whole(logits.softmax(dim=0), image)
    for label, features in sums.features().items():
        assert features == pytest.approx(expected[label], rel=1e-4), label


def test_regions_within_each_other() -> None:
    probs = torch.tensor([[0.9, 0.8, 0.1], [0.7, 0.2, 0.3]]).view(2, 3, 1)
    found = whole(probs, torch.zeros(1, 3, 1), REGIONS)
    assert found["whole"]["expected_dice"] == pytest.approx(2 * 1.7 / (2 + 1.8))
    assert found["core"]["expected_dice"] == pytest.approx(2 * 0.7 / (1 + 1.2))


def test_certain_background_changes_nothing() -> None:
    probs, image = softmax_map(2), torch.randn(1, 9, 7, 8)
    around = torch.full((3, 20, 7, 8), 1e-5)
    around[0] = 1.0 - 2e-5
    around[:, 5:14] = probs
    wide = torch.full((1, 20, 7, 8), 77.0)
    wide[:, 5:14] = image
    narrow, padded = whole(probs, image), whole(around, wide)
    for label in narrow:
        for name in set(narrow[label]) - {"log_surface"}:  # faces to what is now around it
            assert padded[label][name] == pytest.approx(narrow[label][name]), name


@pytest.mark.parametrize("number", [2, 3, 5])
def test_agreement_is_the_pairwise_dice(number: int) -> None:
    agreement = MemberAgreement(ENCODING)
    maps = [softmax_map(seed)[None] for seed in range(number)]
    agreement.count([agreement.labels_of(member) for member in maps])
    for index, label in enumerate(ENCODING.labels, start=1):
        masks = [member[0].argmax(0).numpy() == index for member in maps]
        both = sum(np.count_nonzero(a & b) for a, b in combinations(masks, 2))
        sizes = sum(np.count_nonzero(a) + np.count_nonzero(b) for a, b in combinations(masks, 2))
        assert agreement.by_structure()[label.name] == pytest.approx(2 * both / sizes)


def test_members_without_a_structure_agree_on_it() -> None:
    agreement = MemberAgreement(REGIONS)
    probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)
    agreement.count([agreement.labels_of(probs)] * 2)
    assert agreement.by_structure() == {"whole": 1.0, "core": 1.0}
