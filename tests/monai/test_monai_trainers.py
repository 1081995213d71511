"""MONAI's own trainer and evaluator with our parts, on real cases: our numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, list_data_collate
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandCropByPosNegLabeld,
)
from monai.utils import set_determinism
from torch import nn

from segmed.inference import SlabInferer
from segmed.io import SafeReader
from segmed.losses import make_loss
from segmed.manifest import Manifest
from segmed.metrics import DiceScore, SurfaceScores, evaluate_case, scores_table, summarise
from segmed.models import build_model
from segmed.plan import Plan
from segmed.preprocessing import PreparedDataset, prepared_case
from segmed.training.device import Device
from segmed.training.validation import predict_probs
from segmed.transforms import preparation

# MONAI's `LoadImage` makes all of its readers, one of which lacks NVIDIA's decoder.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")

CPU = Device(torch.device("cpu"), None, "a test")


def narrow_unet(plan: Plan) -> nn.Module:
    torch.manual_seed(0)
    return build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, widths=[4, 8, 8, 8])


def batches(manifest: Manifest, plan: Plan, cache: Path) -> list[dict[str, object]]:
    """The batches of one epoch: random crops of MONAI from prepared cases."""
    set_determinism(0)
    crops = RandCropByPosNegLabeld(
        ["image", "label"], label_key="label", spatial_size=plan.patch_size, num_samples=2
    )
    training = PreparedDataset(manifest, plan, cache, cases=manifest.split(0)[0], transform=crops)
    found = list(DataLoader(training, batch_size=3, collate_fn=list_data_collate))
    set_determinism(None)
    return found


def train_by_monai(network: nn.Module, given: list[dict[str, object]], epochs: int) -> list[float]:
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=given,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=make_loss("dice_ce", num_classes=3),
    )

    @trainer.on("ITERATION_COMPLETED")
    def note() -> None:
        losses.append(from_engine(["loss"], first=True)(trainer.state.output))

    trainer.run()
    return losses


@pytest.fixture(scope="session")
def trained(manifest: Manifest, plan: Plan, cache: Path) -> nn.Module:
    network = narrow_unet(plan)
    train_by_monai(network, batches(manifest, plan, cache), epochs=12)
    return network


def test_supervised_trainer_takes_the_steps_of_a_plain_loop(manifest, plan, cache) -> None:
    network = narrow_unet(plan)
    plain = copy.deepcopy(network)
    given = batches(manifest, plan, cache)
    assert given[0]["image"].shape == (6, 1, 16, 24, 16)
    assert given[0]["label"].shape == (6, 1, 16, 24, 16)
    losses = train_by_monai(network, given, epochs=3)

    loss_of, adam = make_loss("dice_ce", num_classes=3), torch.optim.Adam(plain.parameters(), 1e-2)
    expected = []
    for batch in given * 3:
        loss = loss_of(plain(batch["image"].as_tensor()), batch["label"].as_tensor()[:, 0].long())
        adam.zero_grad()
        loss.backward()
        adam.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0]


def test_supervised_evaluator_gives_the_scores_of_our_evaluation(
    manifest, plan, cache, trained
) -> None:
    held_out = manifest.split(0)[1]
    dataset = PreparedDataset(manifest, plan, cache, cases=held_out)
    taken = from_engine(["pred", "label"])
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=trained,
        inferer=SlabInferer.of(plan, sw_batch_size=2),
        postprocessing=Compose(
            [
                AsDiscreted("pred", argmax=True, to_onehot=3),
                AsDiscreted("label", to_onehot=3),
            ]
        ),
        key_val_metric={"dice": IgniteMetricHandler(DiceScore(3), output_transform=taken)},
        additional_metrics={
            name: IgniteMetricHandler(SurfaceScores(3, (name,)), output_transform=taken)
            for name in ("hd_mm", "hd95_mm", "assd_mm", "nsd")
        },
    )
    evaluator.run()

    rows = []
    for case in held_out:
        prepared, label = prepared_case(manifest, case, plan)
        probs = predict_probs(trained, prepared.tensor, plan, CPU)
        rows += evaluate_case(
            probs.argmax(dim=0).to(torch.uint8),
            label,
            labels=[item.model_copy(update={"value": k}) for k, item in enumerate(plan.labels, 1)],
            spacing_mm=prepared.grid.spacing_mm,
            case_id=case.id,
        )
    table = summarise(scores_table(rows)).set_index(["label", "metric"])["mean"]
    assert table["mean", "dice"] > 0.05  # something to compare
    for name, value in evaluator.state.metrics.items():
        assert value == pytest.approx(table["mean", name], rel=1e-12), name
        details = evaluator.state.metric_details[name].flatten().tolist()
        assert details == pytest.approx([getattr(row, name) for row in rows], rel=1e-12), name


def test_images_loaded_by_monai_are_prepared_as_ours_are(manifest, plan) -> None:
    chain = Compose(
        [
            LoadImaged("image", reader=SafeReader()),
            LoadImaged("label", reader=SafeReader(is_label=True), dtype=None),
            EnsureChannelFirstd(["image", "label"]),
            preparation(plan),
        ]
    )
    for case in manifest.training[:2]:
        row = {"image": manifest.image_paths(case)[0], "label": manifest.label_path(case)}
        done = chain(row)
        prepared, label = prepared_case(manifest, case, plan)
        assert torch.equal(done["image"], prepared.tensor)
        assert torch.equal(done["label"][0], label)


def test_dataset_gives_the_prepared_grid_and_slices_as_monai_does(manifest, plan, cache) -> None:
    dataset = PreparedDataset(manifest, plan, cache)
    assert len(dataset) == 5
    case = manifest.training[1]
    item, (prepared, label) = dataset[1], prepared_case(manifest, case, plan)
    assert item["case"] == case.id
    assert torch.equal(item["image"].as_tensor(), prepared.tensor)
    assert torch.equal(item["label"].as_tensor()[0], label)
    np.testing.assert_array_equal(item["image"].affine, prepared.grid.affine_ras)
    assert [one["case"] for one in dataset[1:3]] == [case.id, manifest.training[2].id]
