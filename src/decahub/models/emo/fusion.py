"""The form of EMO's layers for inference: batch norms folded, work in place, few operators.

A third of the time that one small image takes is what calling an operator costs, so that the blocks are written for
few of them.
"""

import torch
from torch import nn
from transformers.activations import SiLUActivation

from .block import EmoConvolutionLayer, EmoInvertedResidualBlock, EmoWindowAttention, EmoWindows
from .packed_convolution import EmoPackedConvolution


# Of an expanded map that is made at once on a CPU: a larger one would be new memory in each call, and its page faults
# take longer than what they hold.
MAX_MAP_BYTES = 10 * 2**20


def fuse_layers(module: nn.Module) -> None:
    """Replaces the layers in a module in evaluation mode by their form for inference, in place."""
    for name, child in module.named_children():
        if isinstance(child, EmoInvertedResidualBlock):
            setattr(module, name, EmoFusedBlock(child))
        elif isinstance(child, EmoConvolutionLayer):
            setattr(module, name, fuse_convolution_layer(child))
        else:
            fuse_layers(child)


def fuse_convolution_layer(layer: EmoConvolutionLayer) -> nn.Module:
    """Convolution, batch norm and activation in one; the layer itself if it has another norm."""
    if not isinstance(layer.normalization, nn.BatchNorm2d):
        return layer
    fold_norm_after(layer.convolution, layer.normalization)
    return EmoPackedConvolution(layer.convolution, build_in_place(layer.activation))


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


def build_linear(convolution: nn.Conv2d) -> nn.Linear:
    """A 1x1 convolution as a linear layer over the channels of each pixel, which has less overhead."""
    linear = nn.utils.skip_init(nn.Linear, convolution.in_channels, convolution.out_channels, bias=False)
    weight = torch.block_diag(*convolution.weight.flatten(1).chunk(convolution.groups))
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
    return linear


class EmoPixelAttention(EmoWindowAttention):
    """[`EmoWindowAttention`] with the pixels of a window in a row and channels last."""

    forward = EmoWindowAttention.average


class EmoFusedBlock(nn.Module):
    """[`EmoInvertedResidualBlock`] for inference; linear layers and attention work with channels last.

    Args:
        block ([`EmoInvertedResidualBlock`]): in evaluation mode; its parameters and parts are taken over and changed.
    """

    def __init__(self, block: EmoInvertedResidualBlock):
        super().__init__()
        self.has_skip = block.has_skip
        self.attention_before_expansion = block.attention_before_expansion
        self.window_size, self.window_mode, self.mask_padding = (
            block.window_size,
            block.window_mode,
            block.mask_padding,
        )
        self.norm = None if isinstance(block.norm, nn.Identity) else block.norm
        self.attention, self.value = None, None
        if block.attention is not None:
            self.attention = EmoPixelAttention(block.attention.config, block.attention.head_dim)
            self.query_key, self.value = build_linear(block.query_key), build_linear(block.value)
            self.activation = build_in_place(block.activation)
        elif block.value is not None:
            if isinstance(self.norm, nn.BatchNorm2d):
                fold_norm_before(self.norm, block.value)
                self.norm = None
            self.value = EmoPackedConvolution(block.value, build_in_place(block.activation))
        self.depthwise = fuse_convolution_layer(block.depthwise)
        has_gate = not isinstance(block.squeeze_excitation, nn.Identity)
        self.squeeze_excitation = block.squeeze_excitation if has_gate else None
        self.projection = build_linear(block.projection)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        num_images = self.count_images_at_once(hidden_states)
        if num_images is not None:
            return torch.cat([self.forward(part) for part in hidden_states.split(num_images)])
        residual = hidden_states
        if self.norm is not None:
            hidden_states = self.norm(hidden_states)
        if self.attention is not None:
            hidden_states = self.attend(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        elif self.value is not None:
            hidden_states = self.value(hidden_states)
        local = self.depthwise(hidden_states)
        if self.squeeze_excitation is not None:
            local = self.squeeze_excitation(local)
        if self.has_skip:
            local = local.add_(hidden_states)
        hidden_states = self.projection(local.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return hidden_states.add_(residual) if self.has_skip else hidden_states

    def attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Window attention and expansion of a normalized map of shape `(batch_size, height, width, channels)`."""
        windows = EmoWindows.of(hidden_states.permute(0, 3, 1, 2), self.window_size, self.window_mode)
        mask = None
        if self.mask_padding:
            mask = windows.build_padding_mask(hidden_states)
        else:
            windows.warn_of_padding()
        pixels = windows.split_pixels(hidden_states)
        if self.attention_before_expansion:
            attended = self.attention(pixels, self.query_key(pixels), mask)[0]
            return self.activation(self.value(windows.merge_pixels(attended)))
        values = self.activation(self.value(pixels))
        return windows.merge_pixels(self.attention(values, self.query_key(pixels), mask)[0])

    def count_images_at_once(self, hidden_states: torch.Tensor) -> int | None:
        """How many images to compute at once if their expanded maps are too large together, else None."""
        batch_size, _, height, width = hidden_states.shape
        if self.attention is not None or torch.compiler.is_compiling() or batch_size == 1 or not hidden_states.is_cpu:
            return None
        image_bytes = self.projection.in_features * height * width * hidden_states.element_size()
        num_images = max(1, MAX_MAP_BYTES // image_bytes)
        return num_images if num_images < batch_size else None
