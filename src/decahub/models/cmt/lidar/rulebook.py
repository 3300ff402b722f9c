"""Rulebooks of sparse 3D convolutions: which active site reaches which, by which part of the kernel.

Sites are rows of integer coordinates (sample, z, y, x) in lexicographic order. A rulebook depends on the sites and on
the geometry of the kernel, never on features: layers that share both share it.
"""

import itertools
from dataclasses import dataclass, field

import torch


Triple = tuple[int, int, int]


# Products of one block, in numbers: on a CPU they stay in the cache, and their memory is used again without new pages.
BLOCK_SIZES = {"cpu": 2**21}
DEFAULT_BLOCK_SIZE = 2**27


@dataclass(frozen=True)
class Block:
    """A range of target rows, and the pairs that lead to them.

    Args:
        rows (`slice`): Target rows.
        pieces (`list[tuple[int, slice, slice]]`): Kernel offset, its pairs in the rulebook, and their place among the
            pairs of the block.
        order (`torch.IntTensor` of shape `(num_pairs,)`): Pairs of the block in the order of their target row.
        starts (`torch.IntTensor` of shape `(num_rows + 1,)`): Where the pairs of each target row begin in it.
    """

    rows: slice
    pieces: list[tuple[int, slice, slice]]
    order: torch.Tensor
    starts: torch.Tensor


@dataclass(frozen=True)
class Rulebook:
    """Pairs of an input row and an output row, grouped by kernel offset.

    Within one offset, inputs and outputs both ascend: each row occurs at most once.

    Args:
        inputs (`torch.LongTensor` of shape `(num_pairs,)`): Input row of each pair.
        outputs (`torch.LongTensor` of shape `(num_pairs,)`): Output row of each pair.
        counts (`torch.LongTensor` of shape `(num_offsets,)`): Pairs of each kernel offset, in the order of the
            kernel's (z, y, x).
        num_inputs (`int`): Rows of the input.
        num_outputs (`int`): Rows of the output.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    counts: torch.Tensor
    num_inputs: int
    num_outputs: int
    _blocks: dict[tuple[bool, int], list[Block]] = field(default_factory=dict, repr=False, compare=False)

    def blocks_of_outputs(self, channels: int) -> list[Block]:
        """Output rows in blocks that suit products of this many channels."""
        return self._find_blocks(True, channels)

    def blocks_of_inputs(self, channels: int) -> list[Block]:
        """Input rows in such blocks, for the backward pass."""
        return self._find_blocks(False, channels)

    def _find_blocks(self, to_outputs: bool, channels: int) -> list[Block]:
        rows, num_rows = (self.outputs, self.num_outputs) if to_outputs else (self.inputs, self.num_inputs)
        block_size = BLOCK_SIZES.get(rows.device.type, DEFAULT_BLOCK_SIZE)
        num_blocks = -(-len(rows) * channels // block_size) or 1
        key = (to_outputs, num_blocks)
        if key not in self._blocks:
            self._blocks[key] = _cut_blocks(rows, self.counts, num_rows, -(-num_rows // num_blocks) or 1)
        return self._blocks[key]


def _cut_blocks(rows: torch.Tensor, counts: torch.Tensor, num_rows: int, block_rows: int) -> list[Block]:
    """Blocks of `block_rows` target rows; `rows` are the target rows of pairs that are grouped by kernel offset."""
    num_offsets, num_blocks = len(counts), -(-num_rows // block_rows)
    offsets = torch.arange(num_offsets, device=rows.device).repeat_interleave(counts)
    pieces = rows.div(block_rows, rounding_mode="floor") * num_offsets + offsets
    sizes = torch.bincount(pieces, minlength=num_blocks * num_offsets).view(num_blocks, num_offsets)
    firsts = counts.cumsum(0) - counts + sizes.cumsum(0) - sizes  # of a piece, among all pairs
    places = sizes.cumsum(1) - sizes  # of a piece, among the pairs of its block

    # One slot for each target row and offset: faster than sorting the pairs.
    slots = torch.full((num_rows, num_offsets), -1, dtype=torch.int32, device=rows.device)
    shifts = (places - firsts).flatten()[pieces]
    slots[rows, offsets] = (torch.arange(len(rows), device=rows.device) + shifts).int()
    is_used = slots >= 0
    order = slots[is_used]
    starts = slots.new_zeros(num_rows + 1)
    starts[1:] = is_used.sum(dim=1).cumsum(dim=0)

    blocks, first_pair = [], 0
    for index, piece_lists in enumerate(zip(firsts.tolist(), places.tolist(), sizes.tolist(), strict=True)):
        target = slice(index * block_rows, min((index + 1) * block_rows, num_rows))
        parts = [
            (offset, slice(first, first + size), slice(place, place + size))
            for offset, (first, place, size) in enumerate(zip(*piece_lists, strict=True))
            if size
        ]
        num_pairs = sum(piece_lists[2])
        starts_in_block = starts[target.start : target.stop + 1] - first_pair
        blocks.append(Block(target, parts, order[first_pair : first_pair + num_pairs], starts_in_block))
        first_pair += num_pairs
    return blocks


def build_submanifold_rulebook(coords: torch.Tensor, spatial_shape: Triple, kernel_size: Triple) -> Rulebook:
    """Rulebook of a convolution whose output sites are its input sites.

    Half of the kernel is searched for: if `a` reaches `b` by an offset, `b` reaches `a` by the opposite one. Neighbors
    in x are also neighbors in the order of sites, so one search finds a whole row of the kernel.

    Args:
        coords (`torch.LongTensor` of shape `(num_sites, 4)`): Sample, z, y, x of each site, in lexicographic order.
        spatial_shape (`tuple[int, int, int]`): Size of the grid, (z, y, x).
        kernel_size (`tuple[int, int, int]`): Odd sizes, (z, y, x).
    """
    num_sites, num_offsets = len(coords), kernel_size[0] * kernel_size[1] * kernel_size[2]
    radius = [size // 2 for size in kernel_size]
    # A margin of one radius: what lies outside of the grid gets the key of no site.
    depth, height, width = (size + margin for size, margin in zip(spatial_shape, radius, strict=True))
    keys = linear_keys(coords, (depth, height, width))
    sentinels = keys.new_full((kernel_size[2],), torch.iinfo(keys.dtype).max)
    padded = torch.cat([keys, sentinels])
    sites = torch.arange(num_sites, device=coords.device)
    center = num_offsets // 2
    pairs = {center: (sites, sites)}

    def match(offset: int, positions: torch.Tensor, is_found: torch.Tensor) -> None:
        neighbors, found = positions[is_found], is_found.nonzero().squeeze(1)
        pairs[offset] = (neighbors, found)
        pairs[num_offsets - 1 - offset] = (found, neighbors)

    positions = sites + 1
    for step in range(1, radius[2] + 1):  # the row of the center itself
        is_found = padded[positions] == keys + step
        match(center + step, positions, is_found)
        positions = positions + is_found
    rows = itertools.product(range(-radius[0], radius[0] + 1), range(-radius[1], radius[1] + 1))
    for row, (step_z, step_y) in enumerate(rows):
        if (step_z, step_y) <= (0, 0):
            continue
        wanted = keys + (step_z * height + step_y) * width - radius[2]
        positions = torch.searchsorted(keys, wanted)
        for step in range(kernel_size[2]):
            is_found = padded[positions] == wanted + step
            match(row * kernel_size[2] + step, positions, is_found)
            positions = positions + is_found
    ordered = [pairs[offset] for offset in range(num_offsets)]
    return Rulebook(
        inputs=torch.cat([inputs for inputs, _ in ordered]),
        outputs=torch.cat([outputs for _, outputs in ordered]),
        counts=torch.tensor([len(inputs) for inputs, _ in ordered], device=coords.device),
        num_inputs=num_sites,
        num_outputs=num_sites,
    )


def build_strided_rulebook(
    coords: torch.Tensor, spatial_shape: Triple, kernel_size: Triple, stride: Triple, padding: Triple
) -> tuple[Rulebook, torch.Tensor]:
    """Rulebook of a convolution with an output site wherever its kernel sees an active input.

    Args:
        coords (`torch.LongTensor` of shape `(num_sites, 4)`): Sample, z, y, x of each site, in lexicographic order.
        spatial_shape (`tuple[int, int, int]`): Size of the input's grid, (z, y, x).
        kernel_size (`tuple[int, int, int]`): Size of the kernel.
        stride (`tuple[int, int, int]`): Stride.
        padding (`tuple[int, int, int]`): Zeros around the grid.

    Returns:
        The rulebook and the output sites, `(num_output_sites, 4)` in lexicographic order.
    """
    shape = output_shape(spatial_shape, kernel_size, stride, padding)
    reaches, keys = _reach_outputs(coords, 0, kernel_size, stride, padding, shape)
    for axis in (1, 2):
        reaches_axis, along_axis = _reach_outputs(coords, axis, kernel_size, stride, padding, shape)
        reaches = (reaches[:, None] & reaches_axis).flatten(0, 1)
        keys = (keys[:, None] * shape[axis] + along_axis).flatten(0, 1)
    keys = keys + coords[:, 0] * (shape[0] * shape[1] * shape[2])
    unique_keys, outputs = torch.unique(keys[reaches], return_inverse=True)
    rulebook = Rulebook(
        inputs=reaches.nonzero()[:, 1],
        outputs=outputs,
        counts=reaches.sum(dim=1),
        num_inputs=len(coords),
        num_outputs=len(unique_keys),
    )
    return rulebook, _coords_of_keys(unique_keys, shape)


def output_shape(spatial_shape: Triple, kernel_size: Triple, stride: Triple, padding: Triple) -> Triple:
    """Size of the grid after a convolution: `floor((size + 2 * padding - kernel) / stride) + 1` on each axis."""
    sizes = zip(spatial_shape, kernel_size, stride, padding, strict=True)
    depth, height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sizes)
    return depth, height, width


def linear_keys(coords: torch.Tensor, spatial_shape: Triple) -> torch.Tensor:
    """Number of each site's cell, `((sample * depth + z) * height + y) * width + x`, ascending in their order."""
    depth, height, width = spatial_shape
    sample, z, y, x = coords.unbind(dim=1)
    return ((sample * depth + z) * height + y) * width + x


def _reach_outputs(
    coords: torch.Tensor, axis: int, kernel_size: Triple, stride: Triple, padding: Triple, shape: Triple
) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one axis, whether a site reaches an output by each kernel offset, and which: `(kernel, num_sites)`."""
    offsets = torch.arange(kernel_size[axis], device=coords.device)[:, None]
    shifted = coords[:, 1 + axis] + padding[axis] - offsets
    outputs = shifted.div(stride[axis], rounding_mode="floor")
    return (outputs * stride[axis] == shifted) & (outputs >= 0) & (outputs < shape[axis]), outputs


def _coords_of_keys(keys: torch.Tensor, shape: Triple) -> torch.Tensor:
    coords = []
    for size in (shape[2], shape[1], shape[0]):
        coords.append(keys % size)
        keys = keys.div(size, rounding_mode="floor")
    return torch.stack([keys, *reversed(coords)], dim=1)
