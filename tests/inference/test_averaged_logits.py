"""Plans that average logits: over windows, mirror images, members, and on the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from inverse_oracle import inverse_probs
from monai.data import MetaTensor
from tiny_data import affine_from

from segmed.errors import UsageError
from segmed.inference import Predictor, SlabInferer, sliding_window
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.cuda_engine import CudaEngine
from segmed.inference.engine import activation_of
from segmed.inference.windows import profile
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages
from segmed.plan import Inference, plan_hash
from segmed.structures import LabelClass
from segmed.transforms.chain import prepare

LOGITS = Inference(average="logits", mirror_axes=(0, 2))
REGIONS = (
    LabelClass(name="whole", value=2, region=(2, 5)),
    LabelClass(name="core", value=5),
)
CPU = torch.device("cpu")


def volume() -> MetaTensor:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(1, 1, 5, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (20, 26, 18), mode="trilinear")[0]
    return MetaTensor(smooth, affine=torch.from_numpy(affine_from((1.0, 1.0, 1.0), (3, -7, 11))))


def plan_with(make_plan, inference: Inference, labels=None):
    plan = make_plan(spacing_mm=(1.3, 0.9, 1.1), patch=(8, 16, 12), inference=inference)
    return plan if labels is None else plan.model_copy(update={"labels": labels})


def probs_of(predictor: Predictor, image: MetaTensor) -> torch.Tensor:
    found = predictor.predict(image, probabilities=True).probs
    assert found is not None
    return found


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_logits_are_blended_and_interpolated_before_probabilities_are_taken(
    make_plan, make_package, labels
) -> None:
    plan = plan_with(make_plan, LOGITS, labels)
    package, image = make_package(plan), volume()
    prepared = prepare(image, plan)
    blended = sliding_window(package.build(), prepared.tensor, window=plan.patch_size)
    expected = plan.encoding.probabilities(inverse_probs(blended, prepared)[None])[0]
    found = probs_of(Predictor(package, engine="torch"), image)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    usual = plan.model_copy(update={"inference": Inference()})
    other = probs_of(Predictor(make_package(usual), engine="torch"), image)
    assert (other - found).abs().max() > 1e-3


def test_members_and_mirror_images_give_the_mean_of_their_logits(make_plan, make_package) -> None:
    plan = plan_with(make_plan, LOGITS.model_copy(update={"mirror_axes": ()}))
    members, image = [make_package(plan, seed=n) for n in (1, 2, 3)], volume()
    logs = torch.stack([probs_of(Predictor(m, engine="torch"), image).log() for m in members])
    expected = logs.mean(0).softmax(0)  # logits are these up to a constant a voxel
    together = Predictor(members, engine="torch")
    torch.testing.assert_close(probs_of(together, image), expected, rtol=0, atol=1e-4)
    joined = Predictor(join_packages(members), engine="torch")
    torch.testing.assert_close(probs_of(joined, image), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", ["openvino", "torch", "cuda"])
@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_every_engine_gives_the_logits(make_plan, make_package, labels, engine, tmp_path: Path):
    plan = plan_with(make_plan, LOGITS, labels)
    package = make_package(plan)
    windows = torch.randn(2, 1, *plan.patch_size)
    with torch.inference_mode():
        expected = package.build()(windows)
    if engine == "cuda":
        made = CudaEngine(
            package.build(), CPU, precision=torch.float32, activation=activation_of(plan)
        )
    else:
        made = make_engine(package, EngineRequest(engine, CPU, tuple(windows.shape), tmp_path))
    assert expected.abs().max() > 1.5
    torch.testing.assert_close(made(windows), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_inferer_of_a_plan_takes_probabilities_of_blended_logits(make_plan, make_package, labels):
    plan = plan_with(make_plan, LOGITS, labels)
    network, images = make_package(plan).build(), torch.randn(2, 1, 15, 20, 13)
    found = SlabInferer.of(plan)(images, network)
    logits = SlabInferer.of(plan, softmax=False)(images, network)
    torch.testing.assert_close(found, plan.encoding.probabilities(logits))
    assert found.max() <= 1.0 < logits.max()


def test_members_that_average_other_values_are_refused(make_plan, make_package) -> None:
    members = [make_package(plan_with(make_plan, rules)) for rules in (LOGITS, Inference())]
    with pytest.raises(UsageError, match="some packages average logits"):
        Predictor(members, engine="torch")


def test_background_of_skipped_windows_has_no_logit() -> None:
    with pytest.raises(ValueError, match="skip_empty_windows"):
        Inference(average="logits", skip_empty_windows=True)


def test_mirror_images_are_averaged_by_default_where_the_plan_has_it(make_plan, make_package):
    plain = make_package(plan_with(make_plan, LOGITS))
    package = make_package(plan_with(make_plan, LOGITS.model_copy(update={"tta": True})))
    image = volume()
    asked = probs_of(Predictor(plain, engine="torch", tta=True), image)
    by_default = probs_of(Predictor(package, engine="torch"), image)
    torch.testing.assert_close(by_default, asked)
    forbidden = probs_of(Predictor(package, engine="torch", tta=False), image)
    torch.testing.assert_close(forbidden, probs_of(Predictor(plain, engine="torch"), image))
    assert (forbidden - asked).abs().max() > 1e-3


def test_later_fields_leave_the_hashes_of_other_plans_alone(make_plan) -> None:
    fields = make_plan().model_dump()
    assert not {"average", "tta"} & fields["inference"].keys()
    assert not {"scheme", "axes", "kept_axis"} & fields["preprocessing"].keys()
    assert plan_hash(make_plan(inference=LOGITS)) != plan_hash(make_plan())


def test_gaussian_of_nnunet_has_its_peak_at_voxel_n_over_2() -> None:
    for window in (8, 9):
        weights = profile(window, "nnunet")
        assert weights.argmax() == window // 2
        assert weights[window // 2] == 1.0
    # from nnU-Net: the Gaussian of standard deviation 1 about voxel 4
    torch.testing.assert_close(
        profile(8, "nnunet")[[3, 5, 0]],
        torch.tensor([0.6065306597, 0.6065306597, 0.0003354626], dtype=torch.float64).numpy(),
    )


def test_package_with_logits_survives_its_folder(make_plan, make_package, tmp_path: Path) -> None:
    package = make_package(plan_with(make_plan, LOGITS))
    read = ModelPackage.load(package.save(tmp_path / "package"))
    assert read.plan.inference == LOGITS
    assert read.hash == package.hash
