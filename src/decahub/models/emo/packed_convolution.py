"""oneDNN's convolution with packed weights and the activation in the same pass, for inference in float32 on CPUs.

A plain convolution brings its weights into oneDNN's order in each call, and the activation reads and writes the map
once more. torch does without both in code that it compiles, by private operators. They are used here where they exist
and agree with the plain operators; everywhere else the plain ones do the work.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from transformers.activations import GELUActivation, SiLUActivation


PACKED_ACTIVATIONS: dict[type[nn.Module], tuple[str, list, str]] = {
    nn.Identity: ("none", [], ""),
    nn.ReLU: ("relu", [], ""),
    nn.SiLU: ("swish", [], ""),
    SiLUActivation: ("swish", [], ""),
    GELUActivation: ("gelu", [], "none"),
}
"""The activations of EMO's layers, as the private operator takes them."""

PROBE_TOLERANCE = 1e-5
# Without these questions to torch, which are private, too, nobody knows whether a call is plain inference.
CAN_TELL = hasattr(forward_ad, "_current_level") and all(
    hasattr(torch._C, name) for name in ("_are_functorch_transforms_active", "_get_mkldnn_enabled")
)


class EmoPackedConvolution(nn.Module):
    """A convolution that has no gradient of its weights, and the activation after it.

    Args:
        convolution (`torch.nn.Conv2d`): with zero padding; its weights are shared.
        activation (`torch.nn.Module`): of a type in `PACKED_ACTIVATIONS`.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.geometry = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
        self.activation = activation
        self.packed_activation = PACKED_ACTIVATIONS[type(activation)]
        self.packed: tuple[tuple[int, int, int], torch.Tensor, torch.Tensor] | None = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if runs_packed(hidden_states, weight):
            return self.convolve_packed(hidden_states, self.pack(weight))
        return self.activation(functional.conv2d(hidden_states, weight, self.bias, *self.geometry))

    def convolve_packed(self, hidden_states: torch.Tensor, packed_weight: torch.Tensor) -> torch.Tensor:
        stride, padding, dilation, groups = self.geometry
        return torch.ops.mkldnn._convolution_pointwise.default(
            hidden_states, packed_weight, self.bias, padding, stride, dilation, groups, *self.packed_activation
        )

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight in oneDNN's order, made again after the weight has changed."""
        # An inference tensor has no version; `fuse()` makes no such weights.
        state = (id(weight), weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self.packed is None or self.packed[0] != state:
            stride, padding, dilation, groups = self.geometry
            reorder = torch.ops.mkldnn._reorder_convolution_weight.default
            packed_weight = reorder(weight.detach().contiguous(), padding, stride, dilation, groups, None)
            self.packed = (state, weight, packed_weight)
        return self.packed[2]

    def _apply(self, fn, recurse=True):
        self.packed = None  # a weight that has moved may lie at its old address
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": None}  # tensors in oneDNN's order can be neither copied nor pickled


def runs_packed(hidden_states: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the private operators can be used: they know neither gradients nor other types than float32 here."""
    return (
        CAN_TELL
        and not torch.compiler.is_compiling()
        and type(hidden_states) is torch.Tensor
        and hidden_states.dtype == weight.dtype == torch.float32
        and hidden_states.is_cpu
        and weight.is_cpu
        and not hidden_states.requires_grad
        and not weight.requires_grad
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and torch._C._get_mkldnn_enabled()
        and has_operators()
    )


@functools.cache
def has_operators() -> bool:
    """Whether this build of torch has the private operators and they agree with plain torch on a small map."""
    with torch.inference_mode(False), torch.no_grad():
        place = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are
        draw = functools.partial(torch.randn, generator=torch.Generator("cpu").manual_seed(0), **place)
        hidden_states = draw(2, 4, 5, 7).to(memory_format=torch.channels_last)
        convolution = nn.utils.skip_init(nn.Conv2d, 4, 4, 3, stride=2, padding=1, groups=4, **place)
        convolution.weight.copy_(draw(4, 1, 3, 3))
        convolution.bias.copy_(draw(4))
        try:
            for activation in (nn.Identity(), nn.ReLU(), SiLUActivation(), GELUActivation()):
                expected = activation(convolution(hidden_states))
                probe = EmoPackedConvolution(convolution, activation)
                actual = probe.convolve_packed(hidden_states, probe.pack(probe.weight))
                torch.testing.assert_close(actual, expected, atol=PROBE_TOLERANCE, rtol=PROBE_TOLERANCE)
        except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
    return True
