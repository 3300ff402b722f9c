"""Leaf modules of EMO: normalization, convolution layer, squeeze-and-excitation, stochastic depth.

All work on maps of shape `(batch_size, channels, height, width)` in any memory format; the model keeps them in
`channels_last`, where a norm over channels and a 1x1 convolution read memory in order.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN, SiLUActivation

from .configuration_emo import EmoConfig
from .depthwise import EmoDepthwiseConvolution


HEAD_BATCH_NORM_EPS = 1e-5


def is_recomputing() -> bool:
    """Whether the autograd engine is at work, that is, gradient checkpointing runs a forward for the second time."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class EmoBatchNorm(nn.BatchNorm2d):
    """Batch norm that gradient checkpointing does not make count a batch twice."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.training and is_recomputing():
            return functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, True, 0.0, self.eps
            )
        return super().forward(hidden_states)


class EmoLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def build_norm(norm_type: str, num_channels: int, config: EmoConfig) -> nn.Module:
    """Norm over channels by its name in `config.norm_types`."""
    if norm_type == "batch_norm":
        return EmoBatchNorm(num_channels, eps=config.batch_norm_eps)
    return EmoLayerNorm(num_channels, eps=config.layer_norm_eps)


def fold_norm_after(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Puts a batch norm in evaluation mode into the convolution before it, in place."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        bias = bias + convolution.bias * scale
    convolution.weight = nn.Parameter(convolution.weight * scale[:, None, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)


def fold_norm_before(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    """Puts a batch norm in evaluation mode into the 1x1 convolution after it, in place."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    bias = convolution.weight.flatten(1) @ shift
    if convolution.bias is not None:
        bias = bias + convolution.bias
    convolution.weight = nn.Parameter(convolution.weight * scale[None, :, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)


def build_in_place(activation: nn.Module) -> nn.Module:
    """The same activation, overwriting its input if it is SiLU: fresh memory for a large map costs page faults."""
    return nn.SiLU(inplace=True) if isinstance(activation, SiLUActivation) else activation


class EmoPointwiseLinear(nn.Module):
    """A 1x1 convolution as a linear layer over the channels of each pixel, which has less overhead on small maps."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.flatten(1), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return functional.linear(hidden_states.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


class EmoConvolutionLayer(nn.Module):
    """Convolution, norm, activation; padded so that stride 1 keeps the size and stride 2 halves it, rounded up."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        hidden_act: str | None = "relu",
    ):
        super().__init__()
        padding = (kernel_size // 2) * dilation
        convolution_class = EmoDepthwiseConvolution if groups == in_channels == out_channels else nn.Conv2d
        self.convolution = convolution_class(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=bias
        )
        self.normalization = norm if norm is not None else EmoBatchNorm(out_channels, eps=HEAD_BATCH_NORM_EPS)
        self.activation = nn.Identity() if hidden_act is None else ACT2FN[hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(hidden_states)))

    def fuse_norms(self) -> None:
        """Folds the norm into the convolution; the activation then works in place on what the convolution made."""
        if isinstance(self.normalization, nn.BatchNorm2d):
            fold_norm_after(self.convolution, self.normalization)
            self.normalization = nn.Identity()
        self.activation = build_in_place(self.activation)


class EmoSqueezeExcitation(nn.Module):
    """Weights channels by a gate computed from their means (arXiv 1709.01507)."""

    def __init__(self, num_channels: int, reduction_ratio: float, hidden_act: str):
        super().__init__()
        reduced = round(num_channels * reduction_ratio)
        self.reduce = nn.Conv2d(num_channels, reduced, 1)
        self.activation = ACT2FN[hidden_act]
        self.expand = nn.Conv2d(reduced, num_channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        pooled = hidden_states.mean((2, 3), keepdim=True)
        return hidden_states * self.expand(self.activation(self.reduce(pooled))).sigmoid()


class EmoDropPath(nn.Module):
    """Stochastic depth: drops the residual branch of whole samples and scales the others up (arXiv 1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0.0:
            return hidden_states
        keep = hidden_states.new_empty(hidden_states.shape[0], 1, 1, 1).bernoulli_(1 - self.rate)
        return hidden_states * (keep / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
