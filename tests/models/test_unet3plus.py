"""UNet 3+: full-scale sources, deep supervision, the classification-guided module."""

import pytest
import torch

from segmed.errors import ModelError
from segmed.losses import make_loss
from segmed.models import build_model
from segmed.models.gating import ScoredLogits, gate_probabilities
from segmed.models.registry import resolve_options


def net(dims=2, classes=2, **options):
    torch.manual_seed(0)
    return build_model(
        "unet3plus",
        spatial_dims=dims,
        in_channels=1,
        num_classes=classes,
        **{"widths": (4, 5, 6, 7, 8), "norm": None, **options},
    )


def sources_of(model, stage):
    """Maps that a decoder stage takes directly: encoder and decoder levels, from 1."""
    encoded = [m.detach() for m in model.encode(torch.randn(1, 1, 32, 32))]
    decoded = [m.detach() for m in model.decode(encoded)]
    for tensor in [*encoded, *decoded]:
        tensor.requires_grad_()
    later = [*decoded[stage:-1], encoded[-1]]
    model.decoder[stage - 1](encoded[:stage], later).square().sum().backward()
    names = [f"E{n}" for n, m in enumerate(encoded, 1) if m.grad is not None and m.grad.any()]
    return names + [f"D{n}" for n, m in enumerate(decoded, 1) if m.grad is not None]


def test_direct_sources_of_the_finest_and_the_deepest_stage():
    assert sorted(sources_of(net(), 1)) == ["D2", "D3", "D4", "E1", "E5"]
    assert sorted(sources_of(net(), 4)) == ["E1", "E2", "E3", "E4", "E5"]
    assert sorted(sources_of(net(), 2)) == ["D3", "D4", "E1", "E2", "E5"]


def test_the_deepest_stage_depends_on_all_five_encoder_maps():
    model = net()
    encoded = [m.detach().requires_grad_() for m in model.encode(torch.randn(1, 1, 32, 32))]
    model.decode(encoded)[3].square().sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in encoded)


@pytest.mark.parametrize("dims", [2, 3])
def test_five_outputs_lie_on_the_input_grid(dims):
    size = (33, 21, 18)[:dims]
    heads = net(dims, deep_supervision=True).train()(torch.randn(1, 1, *size))
    assert [head.shape for head in heads] == [(1, 2, *size)] * 5


def test_the_papers_heads_are_enlarged_to_the_input_grid():
    paper = resolve_options("unet3plus", preset="paper", spatial_dims=2)
    heads = net(deep_supervision=True, head_grid=paper["head_grid"]).train()(
        torch.randn(1, 1, 64, 32)
    )
    assert [head.shape for head in heads] == [(1, 2, 64, 32)] * 5


def test_class_scores_come_with_the_logits_in_training_and_their_layer_learns():
    model = net(classes=3, cgm=True, deep_supervision=True).train()
    target = torch.randint(0, 3, (2, 20, 20))
    output = model(torch.randn(2, 1, 20, 20))
    assert isinstance(output, ScoredLogits)
    assert output.scores.shape == (2, 3)
    assert len(output.logits) == 5
    make_loss("unet3plus_hybrid", num_classes=3)(output, target).backward()
    assert model.class_head.conv.weight.grad.abs().sum() > 0
    assert isinstance(model.eval()(torch.randn(1, 1, 20, 20)), torch.Tensor)


def test_an_absent_class_gets_probability_zero_and_the_background_what_it_had():
    probs = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1)
    gated = gate_probabilities(probs, torch.tensor([[4.0, -1.0, 2.0]]), is_multilabel=False)
    assert gated.flatten().tolist() == pytest.approx([0.7, 0.0, 0.3])
    single = gate_probabilities(
        torch.full((2, 1, 2, 2), 0.4), torch.tensor([[-3.0], [3.0]]), is_multilabel=True
    )
    assert single[0].abs().max() == 0
    assert torch.equal(single[1], torch.full((1, 2, 2), 0.4))


def test_an_absent_background_score_changes_nothing():
    probs = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1)
    assert torch.equal(
        gate_probabilities(probs, torch.tensor([[-9.0, 9.0]]), is_multilabel=False), probs
    )


def test_width_of_a_source_is_an_option():
    model = net(cat_channels=2)
    assert model.decoder[0].fuse[0].weight.shape[:2] == (10, 10)


@pytest.mark.parametrize(("classes", "has_regions"), [(1, False), (3, False), (1, True), (3, True)])
def test_gating_of_whole_cases_takes_an_absent_class_out_of_the_answer(classes, has_regions):
    model = net(classes=classes, cgm=True, gating="case", has_regions=has_regions).eval()
    open_gates = net(classes=classes, cgm=True, has_regions=has_regions).eval()
    open_gates.load_state_dict(model.state_dict())
    image = torch.randn(1, 1, 20, 20)
    is_multilabel = has_regions or classes == 1
    squash = torch.sigmoid if is_multilabel else (lambda x: x.softmax(1))
    with torch.no_grad():
        for bias, is_there in ((100.0, True), (-100.0, False)):
            model.class_head.conv.bias[-1] = bias
            probs = squash(model(image))
            assert probs.isfinite().all()
            assert bool((probs[:, -1] > 1e-30).any()) == is_there
        if has_regions:  # there is no background: the first is gated, too, and none gains by it
            model.class_head.conv.bias[:] = 100.0
            model.class_head.conv.bias[0] = -100.0
            probs, kept = squash(model(image)), squash(open_gates(image))
            assert probs[:, 0].max() < 1e-30
            assert torch.allclose(probs[:, 1:], kept[:, 1:], atol=1e-6)
        model.class_head.conv.bias[:] = 100.0
        assert torch.allclose(squash(model(image)), squash(open_gates(image)), atol=1e-6)


def test_gating_without_the_module_is_refused():
    with pytest.raises(ModelError, match="cgm=True"):
        net(gating="case")
