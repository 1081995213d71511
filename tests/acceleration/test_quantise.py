"""An int8 network is used only with the weights that it was made from and measured with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segmed.acceleration import Quantised, quantise
from segmed.acceleration.acceptance import faults_of
from segmed.acceleration.network import Quantiser, layers_of
from segmed.acceleration.quantising import QuantisationRequest
from segmed.errors import ModelError, PackageError, UsageError
from segmed.evaluation import evaluate
from segmed.inference import Predictor, choice
from segmed.inference.choice import EngineRequest, make_engine
from segmed.inference.engine import softmax
from segmed.inference.int8_units import features_in, has_bf16_units
from segmed.inference.openvino_engine import complete_network, converted
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.package.card import checked_card
from segmed.package.check import check_package
from segmed.package.int8 import INT8_FILE, ChangeLimits, StructureEffect

CPU = torch.device("cpu")


def request(name: str, package: ModelPackage, cache: Path | None = None) -> EngineRequest:
    return EngineRequest(name, CPU, (1, 1, *package.plan.patch_size), cache)


def test_accepted_network_is_measured_on_every_held_out_case(
    quantised: Quantised, manifest: Manifest
) -> None:
    assert quantised.is_accepted
    assert quantised.package.int8 is not None
    record = quantised.package.int8.record
    held_out = manifest.split(0)[1]
    assert record.cases == len(held_out) == 7
    assert [effect.label for effect in record.structures] == ["anterior", "posterior", "mean"]
    assert all(effect.cases == 7 for effect in record.structures)
    assert all(effect.dice_before > 0.4 for effect in record.structures)
    assert 0 < record.labels_changed < 0.1
    assert record.calibration_windows == 8
    names = {case.id for case in (*manifest.training, *manifest.test)}
    assert not any(name in record.model_dump_json() for name in names)


def test_recorded_effect_is_that_of_the_engine(quantised: Quantised, manifest: Manifest) -> None:
    package = quantised.package
    assert package.int8 is not None
    for engine in ("openvino", "int8"):
        predictor = Predictor(package, device="cpu", engine=engine)
        assert predictor.engines[0].name == engine
        found = evaluate(predictor, manifest, fold=0).table.groupby("label")["dice"].mean()
        field = {"openvino": "dice_before", "int8": "dice_after"}[engine]
        for effect in package.int8.record.structures[:2]:
            assert getattr(effect, field) == pytest.approx(found[effect.label], abs=1e-5)


@pytest.mark.slow
def test_same_seed_gives_the_same_numbers(
    quantised: Quantised, package: ModelPackage, manifest: Manifest
) -> None:
    limits = ChangeLimits(dice_loss=1.0, labels_changed=1.0)
    again = quantise(package, manifest, QuantisationRequest(windows=8, limits=limits))
    other = quantise(package, manifest, QuantisationRequest(windows=8, limits=limits, seed=1))
    first, second, third = (
        found.package.int8.representation()[1] for found in (quantised, again, other)
    )
    assert first == second != third


def test_first_and_last_layers_stay_in_float32(quantised: Quantised) -> None:
    assert quantised.package.int8 is not None
    kept = quantised.attempts[0].float32_layers
    assert len(kept) == 2
    xml, _ = quantised.package.int8.representation()
    assert all(name in xml for name in kept)


@pytest.mark.slow
def test_refused_network_leaves_the_package_as_it_was(
    package: ModelPackage, manifest: Manifest
) -> None:
    limits = ChangeLimits(dice_loss=0.0, labels_changed=0.0)
    said: list[str] = []
    found = quantise(
        package, manifest, QuantisationRequest(windows=4, limits=limits), report=said.append
    )
    assert not found.is_accepted
    assert found.package.hash == package.hash
    assert [attempt.bf16 for attempt in found.attempts] == [True] * has_bf16_units() + [False] * 3
    counts = [len(attempt.float32_layers) for attempt in found.attempts if not attempt.bf16]
    assert counts == sorted(set(counts))
    assert all("labels change" in attempt.faults[-1] for attempt in found.attempts)
    assert sum(line.startswith("not accepted") for line in said) >= 3


def test_bfloat16_is_tried_first_where_the_processor_has_units(quantised: Quantised) -> None:
    assert quantised.package.int8 is not None
    assert quantised.attempts[0].bf16 == has_bf16_units()
    assert quantised.package.int8.record.bf16 == quantised.attempts[-1].bf16
    assert quantised.attempts[-1].record()["bf16"] == quantised.attempts[-1].bf16


def test_other_precision_of_the_same_file_is_another_package(
    quantised: Quantised, tmp_path: Path
) -> None:
    package = quantised.package
    assert package.int8 is not None
    window = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 1, 32, 32, 32))).float()
    maps, hashes = {}, set()
    for bf16 in (False, True):
        record = package.int8.record.model_copy(update={"bf16": bf16})
        other = replace(package, int8=replace(package.int8, record=record))
        saved = ModelPackage.load(other.save(tmp_path / str(bf16)))
        assert saved.hash == other.hash
        hashes.add(saved.hash)
        maps[bf16] = make_engine(saved, request("int8", saved, tmp_path / "cache"))(window).clone()
    assert len(hashes) == 2
    assert maps[True].dtype == torch.float32
    assert torch.equal(maps[True], maps[False]) != has_bf16_units()
    assert (maps[True] - maps[False]).abs().mean() < 0.01


def effect(label: str, difference: float, bound: float) -> StructureEffect:
    return StructureEffect(
        label=label,
        cases=9,
        dice_before=0.9,
        dice_after=0.9 + difference,
        difference=difference,
        bound=bound,
    )


@pytest.mark.parametrize(
    ("difference", "bound", "changed", "cases", "fault"),
    [
        (-0.0019, -0.0019, 0.02, 3, ""),
        (+0.0100, -0.0001, 0.00, 9, ""),
        (-0.0021, -0.0030, 0.00, 9, "b: mean Dice changes by -0.0021"),
        (-0.0010, -0.0021, 0.00, 9, "b: lower bound of the change of Dice -0.0021 (9 pairs)"),
        (-0.0010, -0.0011, 0.0201, 9, "2.01% of labels change"),
        (-0.0010, -0.0011, 0.0, 2, "2 held-out cases, 3 are needed"),
    ],
)
def test_limits_hold_for_each_structure_in_mean_and_bound(
    difference: float, bound: float, changed: float, cases: int, fault: str
) -> None:
    effects = (effect("a", 0.0, 0.0), effect("b", difference, bound))
    found = faults_of(effects, changed, ChangeLimits(), cases=cases)
    assert [line[: len(fault)] for line in found] == ([fault] if fault else [])


def test_package_with_int8_is_written_read_and_checked(
    quantised: Quantised, package: ModelPackage, tmp_path: Path
) -> None:
    whole = quantised.package
    assert whole.float32_hash == package.hash != whole.hash
    folder = whole.save(tmp_path / "package")
    for read in (ModelPackage.load(folder), check_package(folder)):
        assert read.hash == whole.hash
        assert read.accepted_int8 == whole.int8
    assert checked_card(folder)[0].hash == whole.hash
    assert "int8" not in json.loads(
        (package.save(tmp_path / "plain") / "package.json").read_text(encoding="utf-8")
    )
    content = bytearray((folder / INT8_FILE).read_bytes())
    content[-1] ^= 1
    (folder / INT8_FILE).write_bytes(content)
    for reader in (ModelPackage.load, check_package):
        with pytest.raises(PackageError, match=INT8_FILE):
            reader(folder)
    (folder / INT8_FILE).unlink()
    with pytest.raises(PackageError, match=f"{INT8_FILE} is missing"):
        ModelPackage.load(folder)


def test_int8_of_another_package_is_refused(
    quantised: Quantised, package: ModelPackage, tmp_path: Path
) -> None:
    changed = {name: value + 0.01 for name, value in package.state.items()}
    mixed = quantised.package.save(tmp_path / "mixed")
    other = replace(package, state=changed).save(tmp_path / "other")
    card = json.loads((other / "package.json").read_text(encoding="utf-8"))
    given = json.loads((mixed / "package.json").read_text(encoding="utf-8"))
    card["int8"] = given["int8"]
    card["files"][INT8_FILE] = given["files"][INT8_FILE]
    (other / INT8_FILE).write_bytes((mixed / INT8_FILE).read_bytes())
    (other / "package.json").write_text(json.dumps(card), encoding="utf-8")
    for reader in (ModelPackage.load, check_package):
        with pytest.raises(PackageError, match="was made from package"):
            reader(other)


def test_other_weights_or_another_plan_have_no_int8(
    quantised: Quantised, package: ModelPackage, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    weights = {name: value + 0.01 for name, value in package.state.items()}
    rules = package.plan.inference.model_copy(update={"overlap": 0.25})
    plan = package.plan.model_copy(update={"inference": rules})
    for changed in (
        replace(quantised.package, state=weights),
        replace(quantised.package, plan=plan),
    ):
        assert changed.accepted_int8 is None
        assert changed.hash == replace(changed, int8=None).hash
        saved = ModelPackage.load(changed.save(tmp_path / changed.hash))
        assert saved.int8 is None
        assert not (tmp_path / changed.hash / INT8_FILE).exists()
        with pytest.raises(UsageError, match="has no int8 network"):
            make_engine(changed, request("int8", changed))
    assert "left out" in caplog.text
    assert replace(quantised.package, provenance={}).accepted_int8 is not None


def test_auto_is_int8_where_accepted_allowed_and_fast(
    quantised: Quantised,
    package: ModelPackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="segmed")
    monkeypatch.setattr(choice, "has_int8_units", lambda: True)
    whole = quantised.package
    assert make_engine(whole, request("auto", whole, tmp_path)).name == "int8"
    assert make_engine(package, request("auto", package, tmp_path)).name == "openvino"
    assert "int8 units" not in caplog.text
    monkeypatch.setattr(choice, "has_int8_units", lambda: False)
    assert make_engine(whole, request("auto", whole, tmp_path)).name == "openvino"
    assert "in float32: this processor has no int8 units" in caplog.text
    assert make_engine(whole, request("int8", whole, tmp_path)).name == "int8"
    assert len(list(tmp_path.rglob("*.xml"))) == 2  # float32 is shared by both packages


def test_plan_that_allows_no_int8_keeps_auto_in_float32(
    quantised: Quantised, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "has_int8_units", lambda: True)
    rules = package.plan.inference.model_copy(update={"allow_int8": False})
    strict = replace(package, plan=package.plan.model_copy(update={"inference": rules}))
    assert strict.hash != package.hash
    assert quantised.package.int8 is not None
    record = quantised.package.int8.record
    made = record.model_copy(update={"made_from": strict.float32_hash})
    with_int8 = replace(strict, int8=replace(quantised.package.int8, record=made))
    assert with_int8.accepted_int8 is not None
    assert choice.uses_int8(quantised.package)
    assert not choice.uses_int8(with_int8)
    assert make_engine(with_int8, request("int8", with_int8)).name == "int8"  # when asked for
    assert "allow_int8" not in package.plan.model_dump()["inference"]


def test_cached_int8_network_gives_the_same_values(quantised: Quantised, tmp_path: Path) -> None:
    package = quantised.package
    window = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 1, 32, 32, 32)))
    first = make_engine(package, request("int8", package, tmp_path))(window.float()).clone()
    again = make_engine(package, request("int8", package, tmp_path))(window.float())
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_int8_network_that_computes_something_else_here_is_not_used(
    quantised: Quantised,
    package: ModelPackage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "has_int8_units", lambda: True)
    other = ModelPackage(
        package.architecture,
        package.options,
        package.plan,
        {name: value.flip(0) for name, value in package.state.items()},
    )
    network = complete_network(other.build(), softmax)
    made = Quantiser(network, np.zeros((1, 1, 32, 32, 32), np.float32), tmp_path).quantise(())
    assert quantised.package.int8 is not None
    int8 = replace(quantised.package.int8, content=made.content)
    mixed = replace(quantised.package, int8=int8)
    assert make_engine(mixed, request("auto", mixed)).name == "openvino"
    assert "the int8 network gives values that differ" in caplog.text
    with pytest.raises(ModelError, match="use engine openvino, or quantise"):
        make_engine(mixed, request("int8", mixed))


def test_request_without_held_out_or_training_cases_is_refused(
    package: ModelPackage, manifest: Manifest
) -> None:
    with pytest.raises(UsageError, match="were trained on"):
        quantise(package, manifest, QuantisationRequest(fold=1))
    alone = manifest.model_copy(update={"training": manifest.split(0)[1]})
    with pytest.raises(UsageError, match="no training case to calibrate on"):
        quantise(package, alone, QuantisationRequest(fold=0))


def test_features_of_a_processor_are_read() -> None:
    intel = "processor\t: 0\nflags\t\t: fpu sse avx512_vnni\n\nflags\t: none\n"
    assert "avx512_vnni" in features_in(intel)
    assert "i8mm" in features_in("Features\t: fp asimd i8mm\n")
    assert features_in("vendor_id : x\n") == frozenset()


def test_layers_of_a_chain_are_ordered(package: ModelPackage) -> None:
    outer, every = layers_of(converted(package.build(), (1, 1, 32, 32, 32)))
    assert outer == (every[0], every[-1])
    assert len(every) == sum(value.ndim == 5 for value in package.state.values())
