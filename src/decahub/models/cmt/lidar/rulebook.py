"""Rulebooks of sparse 3D convolutions: which active site reaches which, by which part of the kernel.

Sites are rows of integer coordinates (sample, z, y, x) in lexicographic order. A rulebook depends on the sites and on
the geometry of the kernel, never on features: layers that share both share it.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch


Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Rulebook:
    """Pairs of an input row and an output row, grouped by kernel offset.

    Within one offset a row occurs at most once as input and at most once as output.

    Args:
        inputs (`torch.LongTensor` of shape `(num_pairs,)`): Input row of each pair.
        outputs (`torch.LongTensor` of shape `(num_pairs,)`): Output row of each pair.
        counts (`list[int]`): Pairs of each kernel offset, in the order of the kernel's (z, y, x).
        num_inputs (`int`): Rows of the input.
        num_outputs (`int`): Rows of the output.
        center (`int`, *optional*): Offset that maps each row to itself: the center of a submanifold kernel.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    counts: list[int]
    num_inputs: int
    num_outputs: int
    center: int | None = None

    @cached_property
    def by_output(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs in the order of their output row, and where each row's pairs begin: `(num_pairs,)`, `(rows + 1,)`."""
        return self._group(self.outputs, self.num_outputs)

    @cached_property
    def by_input(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs in the order of their input row, and where each row's pairs begin."""
        return self._group(self.inputs, self.num_inputs)

    def _group(self, rows: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        # One slot for each row and offset: faster than sorting the pairs.
        counts = torch.tensor(self.counts, device=rows.device)
        offsets = torch.arange(len(self.counts), device=rows.device).repeat_interleave(counts)
        slots = rows.new_full((num_rows, len(self.counts)), -1)
        slots[rows, offsets] = torch.arange(len(rows), device=rows.device)
        is_used = slots >= 0
        starts = rows.new_zeros(num_rows + 1)
        starts[1:] = is_used.sum(dim=1).cumsum(dim=0)
        return slots[is_used], starts


def build_submanifold_rulebook(coords: torch.Tensor, spatial_shape: Triple, kernel_size: Triple) -> Rulebook:
    """Rulebook of a convolution whose output sites are its input sites.

    Half of the kernel is searched for: if `a` reaches `b` by an offset, `b` reaches `a` by the opposite one. Sites that
    are neighbors in x are neighbors in the order, so one search finds a whole row of the kernel.

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
        counts=[len(inputs) for inputs, _ in ordered],
        num_inputs=num_sites,
        num_outputs=num_sites,
        center=center,
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
        counts=reaches.sum(dim=1).tolist(),
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
    """One integer for each site, `((sample * depth + z) * height + y) * width + x`: it grows in lexicographic order."""
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
