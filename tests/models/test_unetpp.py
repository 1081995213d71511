"""U-Net++: dense skips, accurate and fast modes, pruning."""

import pytest
import torch

from segmed.errors import ModelError
from segmed.models import build_model
from segmed.models.unetpp import average_probabilities


def net(dims=2, classes=3, **options):
    torch.manual_seed(0)
    return build_model(
        "unetpp",
        spatial_dims=dims,
        in_channels=1,
        num_classes=classes,
        **{"widths": (4, 5, 6, 7, 8), "deep_supervision": True, **options},
    ).eval()


IMAGE = torch.randn(1, 1, 37, 41, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("upsample", ["deconv", "linear"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_pruned_net_equals_its_head_and_is_a_subset(depth, upsample):
    model = net(upsample=upsample)
    with torch.no_grad():
        heads = model.head_logits(IMAGE)
        pruned = model.prune(depth)
        assert torch.equal(pruned(IMAGE), heads[4 - depth])
    assert len(heads) == 4
    state, own = pruned.state_dict(), model.state_dict()
    assert set(state) <= set(own)
    assert all(torch.equal(value, own[key]) for key, value in state.items())


def test_pruned_sizes_are_the_published_ones():
    with torch.device("meta"):
        model = build_model(
            "unetpp",
            spatial_dims=2,
            in_channels=1,
            num_classes=1,
            preset="paper",
            norm="batch",
            upsample="bilinear",
            deep_supervision=True,
        )
        sizes = [
            sum(parameter.numel() for parameter in model.prune(depth).parameters())
            for depth in (1, 2, 3, 4)
        ]
    assert sizes == [102_465, 518_529, 2_235_585, 9_162_753]


def test_pruning_to_a_head_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="heads 4"):
        net(deep_supervision=False).prune(2)


@pytest.mark.parametrize(("classes", "has_regions"), [(1, False), (3, False), (3, True)])
def test_accurate_mode_averages_probabilities_not_logits(classes, has_regions):
    model = net(classes=classes, has_regions=has_regions)
    heads = model.head_logits(IMAGE)
    is_multilabel = has_regions or classes == 1
    squash = torch.sigmoid if is_multilabel else (lambda x: x.softmax(1))
    accurate = squash(model(IMAGE))
    expected = torch.stack([squash(head) for head in heads]).mean(0)
    assert torch.allclose(accurate, expected, atol=1e-6)
    of_the_mean = squash(torch.stack(heads).mean(0))
    assert (accurate - of_the_mean).abs().max() > 1e-3


def test_averaged_probabilities_of_certain_heads_stay_finite():
    heads = [torch.tensor([[[[200.0]]]]), torch.tensor([[[[-200.0]]]])]
    assert average_probabilities(heads, is_multilabel=True).item() == pytest.approx(0.0, abs=1e-5)


def test_fast_mode_is_the_deepest_head():
    model = net(mode="fast")
    assert torch.equal(model(IMAGE), model.head_logits(IMAGE)[0])


def test_zeroing_a_node_changes_the_later_nodes_of_its_row_and_nothing_else():
    model = net()
    outputs = {}

    def record(key):
        return lambda module, inputs, output: outputs.__setitem__(key, output.detach().clone())

    hooks = [node.register_forward_hook(record(key)) for key, node in model.nodes.items()]
    model(IMAGE)
    before = dict(outputs)
    model.nodes["0_1"].register_forward_hook(lambda module, inputs, output: output * 0)
    model(IMAGE)
    for hook in hooks:
        hook.remove()
    changed = {key for key in before if not torch.equal(before[key], outputs[key])}
    assert changed == {"0_2", "0_3", "0_4"}
    assert len(before) == 15


def test_fifteen_nodes_have_thirty_convolutions():
    convs = [m for m in net(upsample="linear").nodes.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) == 30
