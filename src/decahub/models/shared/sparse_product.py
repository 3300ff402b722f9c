"""Products of a sparse matrix with a dense one: a weighted sum of dense rows for each row of the sparse matrix."""

from typing import Any

import torch
from torch.nn import functional

from .graph_inputs import build_csr


# Where a sum of embeddings is faster than the sparse product, as measured with float32 on x86. Up to 8 and at 16
# channels oneMKL has kernels that are hard to beat; from 256 on neither is ahead. Other types and devices keep the
# product: in float64 a sum of embeddings copies a row for each entry.
MIN_BAG_CHANNELS, MAX_BAG_CHANNELS = 9, 128
EXCEPTED_BAG_CHANNELS = 16


def multiply_sparse(matrix: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    r"""The product of a sparse and a dense matrix, without a gradient and in their own type, also under autocast.

    $$(A H)_i = \sum_j a_{ij} h_j$$

    Args:
        matrix (`torch.Tensor` of shape `(num_rows, num_columns)`): $A$ in CSR layout, float32 or float64. The
            libraries behind the product take int32 indices; wider ones are converted at every call.
        dense (`torch.Tensor` of shape `(num_columns, channels)`): $H$, of the same type.

    Returns:
        `torch.Tensor` of shape `(num_rows, channels)`; zeros for an empty row.
    """
    matrix, dense = matrix.detach(), dense.detach().contiguous()
    # Autocast would turn the matrix into a half precision for which there is no sparse product.
    with torch.autocast(dense.device.type, enabled=False):
        if not is_faster_as_bag(dense):
            return matrix @ dense
        return functional.embedding_bag(
            matrix.col_indices(),
            dense,
            matrix.crow_indices(),
            mode="sum",
            per_sample_weights=matrix.values(),
            include_last_offset=True,
        )


def is_faster_as_bag(dense: torch.Tensor) -> bool:
    """Whether [`multiply_sparse`] takes a sum of embeddings."""
    channels = dense.shape[1]
    is_measured = dense.device.type == "cpu" and dense.dtype == torch.float32
    return is_measured and MIN_BAG_CHANNELS <= channels <= MAX_BAG_CHANNELS and channels != EXCEPTED_BAG_CHANNELS


class SparseProduct(torch.autograd.Function):
    """[`multiply_sparse`] with a matrix that is constant, differentiable in the dense factor any number of times.

    `SparseProduct.apply(dense, matrix, transposed)`; `transposed` is the transpose in CSR layout, from which gradients
    are computed. Without it, it is made in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, dense: torch.Tensor, matrix: torch.Tensor, transposed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The product, `(num_rows, channels)`."""
        ctx.matrix, ctx.transposed = matrix, transposed
        return multiply_sparse(matrix, dense)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient of the dense factor."""
        transposed = transpose_csr(ctx.matrix) if ctx.transposed is None else ctx.transposed
        return SparseProduct.apply(gradient, transposed, ctx.matrix), None, None


def transpose_csr(matrix: torch.Tensor) -> torch.Tensor:
    """The transpose of a CSR matrix, in CSR layout with the same type of indices."""
    num_rows, num_columns = matrix.shape
    starts, columns = matrix.crow_indices(), matrix.col_indices()
    rows = torch.arange(num_rows, dtype=starts.dtype, device=starts.device).repeat_interleave(starts.diff())
    # int32 is sorted by radix.
    order = torch.argsort(columns.int() if num_columns < 2**31 else columns, stable=True)
    new_starts = starts.new_zeros(num_columns + 1)
    torch.cumsum(torch.bincount(columns, minlength=num_columns), 0, out=new_starts[1:])
    return build_csr(new_starts, rows[order], matrix.values()[order], (num_columns, num_rows))


__all__ = ["SparseProduct", "is_faster_as_bag", "multiply_sparse", "transpose_csr"]
