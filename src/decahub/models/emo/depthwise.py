"""Depth-wise convolution with a weight gradient that stays fast on maps smaller than the kernel.

On CPUs the library's kernel for that gradient is there about forty times as slow as the rest of the pass, which made
up a third of a training step on 32-pixel images. The gradient is a sum over the taps of the kernel:

    dL / dw[c, i, j] = sum over b, y, x of  dL / dout[b, c, y, x] * in[b, c, y * stride + i, x * stride + j]

with the input padded by zeros.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def compute_weight_gradient(
    hidden_states: torch.Tensor, grad_output: torch.Tensor, kernel_size: int, stride: int, padding: int
) -> torch.Tensor:
    """Gradient of a depth-wise convolution's weight, one tap of the kernel after the other.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, channels, height, width)`): input of the convolution.
        grad_output (`torch.Tensor` of shape `(batch_size, channels, out_height, out_width)`): gradient of its output.
        kernel_size (`int`): of the square kernel.
        stride (`int`): of the convolution.
        padding (`int`): zeros added on each side.

    Returns:
        `torch.Tensor` of shape `(channels, 1, kernel_size, kernel_size)`.
    """
    padded = functional.pad(hidden_states.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    grad_output = grad_output.permute(0, 2, 3, 1)
    row_span = stride * (grad_output.shape[1] - 1) + 1
    column_span = stride * (grad_output.shape[2] - 1) + 1
    taps = [
        (padded[:, row : row + row_span : stride, column : column + column_span : stride] * grad_output).sum((0, 1, 2))
        for row in range(kernel_size)
        for column in range(kernel_size)
    ]
    return torch.stack(taps, 1).view(-1, 1, kernel_size, kernel_size)


class SmallMapConvolution(torch.autograd.Function):
    """The library's depth-wise convolution with `compute_weight_gradient` in its backward pass."""

    @staticmethod
    def forward(hidden_states: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        return functional.conv2d(hidden_states, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        hidden_states, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(hidden_states, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_states, weight = ctx.saved_tensors
        grad_input = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_input = nn.grad.conv2d_input(
                hidden_states.shape, weight, grad_output, ctx.stride, ctx.padding, groups=len(weight)
            )
        if ctx.needs_input_grad[1]:
            grad_weight = compute_weight_gradient(
                hidden_states, grad_output, weight.shape[-1], ctx.stride, ctx.padding
            )
        return grad_input, grad_weight, None, None


class EmoDepthwiseConvolution(nn.Conv2d):
    """`torch.nn.Conv2d` with one group per channel and a square kernel, and the faster gradient where it pays."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.has_slow_weight_gradient(hidden_states):
            return SmallMapConvolution.apply(hidden_states, self.weight, self.stride[0], self.padding[0])
        return super().forward(hidden_states)

    def has_slow_weight_gradient(self, hidden_states: torch.Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and hidden_states.device.type == "cpu"
            and hidden_states.dtype == self.weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and min(hidden_states.shape[2:]) < self.kernel_size[0]
        )
