"""EMO's fused copy: the same outputs by every way that it can be used, with packed weights and without."""

import copy
import pickle

import pytest
import torch
from transformers.utils import logging

from decahub import EmoForSemanticSegmentation
from decahub.models.emo import fusion, packed_convolution
from decahub.models.emo.packed_convolution import EmoPackedConvolution
from tests.tiny.emo import build_distinct as build


ATOL_FUSED = 1e-5  # batch norms folded into weights round once more
ATOL_FLOAT64 = 1e-6  # the same, with weights that were folded in float32
ATOL_BFLOAT16 = 0.05  # 8 bits of mantissa through 7 blocks, on logits of standard deviation near 0.3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["packed", "plain"])
def way(request, monkeypatch):
    """Both sets of operators; the packed ones are only there where this build of torch has them."""
    if request.param == "plain":
        monkeypatch.setattr(packed_convolution, "has_operators", lambda: False)
    elif not packed_convolution.has_operators():
        pytest.skip("this build of torch has no packed convolutions")
    return request.param


@pytest.fixture
def packed_calls(monkeypatch):
    """The inputs of the packed operators."""
    calls, convolve = [], EmoPackedConvolution.convolve_packed

    def spy(self, hidden_states, packed_weight):
        calls.append(hidden_states)
        return convolve(self, hidden_states, packed_weight)

    monkeypatch.setattr(EmoPackedConvolution, "convolve_packed", spy)
    return calls


def draw(batch_size: int, height: int = 65, width: int = 97) -> torch.Tensor:
    return torch.randn(batch_size, 3, height, width)


def assert_same_logits(fused, model, pixel_values: torch.Tensor, atol: float = ATOL_FUSED) -> None:
    with torch.no_grad():
        expected, actual = model(pixel_values).logits, fused(pixel_values).logits
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mask_padding": True, "window_mode": "tile"},
        {"use_attention": [True] * 4, "grouped_value": True},
        {"use_attention": [True] * 4, "attention_before_expansion": False},
        {"hidden_acts": ["relu", "gelu", "silu", "relu"]},
        {"hidden_acts": ["gelu", "silu", "relu", "silu"], "norm_types": ["batch_norm"] * 4},
        {"norm_types": ["layer_norm"] * 4, "squeeze_excitation_ratios": [0.25] * 4},
    ],
    ids=["default", "masked tiles", "grouped", "expansion first", "activations", "batch norms", "layer norms"],
)
def test_every_architecture_gives_the_same_logits(way, fields):
    model = build(**fields)

    assert_same_logits(model.fuse(), model, draw(2))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_batch_size_gives_the_same_logits(way, batch_size):
    model = build()

    assert_same_logits(model.fuse(), model, draw(batch_size))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda pixels: pixels.to(memory_format=torch.channels_last),
        lambda pixels: pixels.transpose(2, 3),
        lambda pixels: pixels[:, :, ::2, 1::3],
        lambda pixels: pixels[:, :1].expand(-1, 3, -1, -1),
    ],
    ids=["channels last", "transposed", "strided", "expanded"],
)
def test_every_memory_layout_gives_the_same_logits(way, arrange):
    model = build()

    assert_same_logits(model.fuse(), model, arrange(draw(2)))


def test_packed_weights_are_used_in_evaluation_on_cpu(packed_calls):
    if not packed_convolution.has_operators():
        pytest.skip("this build of torch has no packed convolutions")
    fused = build(EmoForSemanticSegmentation).fuse()

    with torch.inference_mode():
        fused(draw(2))

    num_convolutions = sum(isinstance(module, EmoPackedConvolution) for module in fused.modules())
    assert len(packed_calls) == num_convolutions - 1  # all but that of the auxiliary head, which gives a loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fused_copy_can_be_converted_after_it_has_run(packed_calls, dtype):
    model = build()
    fused, pixel_values = model.fuse(), draw(2)
    fused(pixel_values)
    packed_calls.clear()

    fused.to(dtype)

    atol = {torch.float64: ATOL_FLOAT64, torch.float32: ATOL_FUSED, torch.bfloat16: ATOL_BFLOAT16}[dtype]
    assert_same_logits(fused, model.to(dtype), pixel_values.to(dtype), atol)
    assert bool(packed_calls) == (dtype == torch.float32 and packed_convolution.has_operators())


def test_fused_copy_that_was_rounded_keeps_rounded_weights():
    fused, pixel_values = build().fuse(), draw(2)
    before = fused(pixel_values).logits

    rounded = fused.bfloat16().float()(pixel_values).logits

    assert not torch.equal(rounded, before)
    torch.testing.assert_close(rounded, before, atol=ATOL_BFLOAT16, rtol=0)


def test_autocast_computes_in_its_type(packed_calls):
    model, pixel_values = build(), draw(2)
    fused = model.fuse()

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = fused(pixel_values).logits

    assert logits.dtype == torch.bfloat16
    assert not packed_calls
    torch.testing.assert_close(logits.float(), model(pixel_values).logits, atol=ATOL_BFLOAT16, rtol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_fused_copy_can_be_copied_after_it_has_run(way, duplicate):
    model = build()
    fused, pixel_values = model.fuse(), draw(2)
    expected = fused(pixel_values).logits

    twin = duplicate(fused)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()

    torch.testing.assert_close(twin(pixel_values).logits, expected, atol=0, rtol=0)
    assert twin._is_fused


def test_changed_weights_are_packed_anew(way):
    fused, other, pixel_values = build().fuse(), build().fuse(), draw(2)
    fused(pixel_values)

    fused.load_state_dict(other.state_dict())

    torch.testing.assert_close(fused(pixel_values).logits, other(pixel_values).logits, atol=0, rtol=0)
    state = {name: value.clone() for name, value in build().fuse().state_dict().items()}
    expected = torch.func.functional_call(fused, state, (pixel_values,)).logits
    fused.load_state_dict(state)
    torch.testing.assert_close(fused(pixel_values).logits, expected, atol=ATOL_FUSED, rtol=0)


def test_a_copy_made_in_inference_mode_sees_changed_weights(way):
    with torch.inference_mode():
        model = build()
        fused, other, pixel_values = model.fuse(), build().fuse(), draw(2)
        assert_same_logits(fused, model, pixel_values)

        fused.load_state_dict(other.state_dict())

        torch.testing.assert_close(fused(pixel_values).logits, other(pixel_values).logits, atol=0, rtol=0)


def test_gradient_of_the_input_is_that_of_the_model(way):
    model, pixel_values = build(), draw(2)
    gradients = []
    for network in (model, model.fuse()):
        pixels = pixel_values.clone().requires_grad_()
        network(pixels).logits.square().sum().backward()
        gradients.append(pixels.grad)

    largest = float(gradients[0].abs().max())
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4 * largest, rtol=0)
    assert largest > 1e-5


def test_forward_derivative_is_that_of_the_model(way):
    model, pixel_values, direction = build(attn_implementation="eager").requires_grad_(False), draw(1), draw(1)

    derivatives = [
        torch.func.jvp(lambda pixels, network=network: network(pixels).logits, (pixel_values,), (direction,))[1]
        for network in (model, model.fuse())
    ]

    torch.testing.assert_close(derivatives[1], derivatives[0], atol=ATOL_FUSED, rtol=1e-3)
    assert derivatives[0].abs().max() > 1e-4


def test_attention_weights_are_those_of_the_model(way):
    model, pixel_values = build(attn_implementation="eager"), draw(2)

    with torch.no_grad():
        expected, actual = (network(pixel_values, output_attentions=True) for network in (model, model.fuse()))

    assert len(expected.attentions) == 2
    torch.testing.assert_close(actual.attentions, expected.attentions, atol=ATOL_FUSED, rtol=0)


def test_large_maps_are_computed_in_parts(way, monkeypatch):
    model, pixel_values = build(), draw(5)
    fused, sizes = model.fuse(), []
    monkeypatch.setattr(fusion, "MAX_MAP_BYTES", 2 * 4 * 40 * 33 * 49)  # two maps of 40 channels
    block = fused.emo.stages[0].blocks[0]
    block.depthwise.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape))

    assert_same_logits(fused, model, pixel_values)

    assert [tuple(size) for size in sizes] == [(2, 40, 33, 49), (2, 40, 33, 49), (1, 40, 33, 49)]


def test_warns_of_windows_that_are_mostly_padding(monkeypatch):
    warnings = []
    monkeypatch.setattr(logging.get_logger("decahub.models.emo.block"), "warning_once", warnings.append)

    build(window_sizes=[7] * 4).fuse()(draw(1, 32, 32))

    assert any("fills less than half of windows" in warning for warning in warnings)


# The private operators


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_missing_operators_are_noticed(monkeypatch, error):
    def fail(self, weight):
        raise error

    monkeypatch.setattr(EmoPackedConvolution, "pack", fail)

    assert not packed_convolution.has_operators.__wrapped__()


def test_a_torch_that_cannot_tell_plain_inference_runs_public_operators(monkeypatch, packed_calls):
    monkeypatch.setattr(packed_convolution, "CAN_TELL", False)
    model = build()

    with torch.inference_mode():
        model.fuse()(draw(2))

    assert not packed_calls


def test_operators_that_disagree_are_not_used(monkeypatch):
    monkeypatch.setattr(EmoPackedConvolution, "convolve_packed", lambda self, hidden_states, packed: hidden_states)

    assert not packed_convolution.has_operators.__wrapped__()


def test_probe_neither_reads_nor_changes_the_state_of_torch():
    state, expected = torch.get_rng_state(), packed_convolution.has_operators()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert packed_convolution.has_operators.__wrapped__() == expected
    finally:
        torch.set_default_dtype(torch.float32)

    assert torch.equal(torch.get_rng_state(), state)
