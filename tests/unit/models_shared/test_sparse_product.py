"""Sparse products against dense ones, by both kernels."""

import pytest
import torch

from decahub.models.shared import sparse_product
from decahub.models.shared.graph_inputs import build_csr
from decahub.models.shared.sparse_product import SparseProduct, is_faster_as_bag, multiply_sparse, transpose_csr


ATOL = {torch.float32: 5e-7, torch.float64: 1e-15}  # sums of at most five terms below 1
NUM_ROWS, NUM_COLUMNS = 5, 7
ROWS, COLUMNS = [0, 2, 2, 5, 6, 6], [6, 0, 2, 2, 4, 3]  # row 1 and the last one are empty; an entry is there twice

by_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
by_kernel = pytest.mark.parametrize("is_bag", [False, True], ids=["product", "bag"])


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype) - 0.3


def build_matrices(dtype: torch.dtype, index_dtype: torch.dtype = torch.int32) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix in CSR layout and the same as a dense one."""
    values = draw(len(COLUMNS), dtype=dtype)
    dense = torch.zeros(NUM_ROWS, NUM_COLUMNS, dtype=dtype)
    for row in range(NUM_ROWS):
        for entry in range(ROWS[row], ROWS[row + 1]):
            dense[row, COLUMNS[entry]] += values[entry]
    rows, columns = (torch.tensor(indices, dtype=index_dtype) for indices in (ROWS, COLUMNS))
    return build_csr(rows, columns, values, (NUM_ROWS, NUM_COLUMNS)), dense


@by_kernel
@by_dtype
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("channels", [1, 9, 20])
def test_equals_the_dense_product(is_bag, dtype, index_dtype, channels, monkeypatch):
    monkeypatch.setattr(sparse_product, "is_faster_as_bag", lambda dense: is_bag)
    matrix, expected = build_matrices(dtype, index_dtype)
    states = draw(NUM_COLUMNS, channels, dtype=dtype)

    actual = multiply_sparse(matrix, states)

    assert actual.dtype == dtype
    torch.testing.assert_close(actual, expected @ states, atol=ATOL[dtype], rtol=0)


@by_kernel
def test_reads_a_transposed_view(is_bag, monkeypatch):
    monkeypatch.setattr(sparse_product, "is_faster_as_bag", lambda dense: is_bag)
    matrix, expected = build_matrices(torch.float32)
    states = draw(11, NUM_COLUMNS, dtype=torch.float32).t()

    torch.testing.assert_close(multiply_sparse(matrix, states), expected @ states, atol=5e-7, rtol=0)


@by_kernel
def test_no_entries_give_zeros(is_bag, monkeypatch):
    monkeypatch.setattr(sparse_product, "is_faster_as_bag", lambda dense: is_bag)
    rows, columns = torch.zeros(NUM_ROWS + 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
    matrix = build_csr(rows, columns, torch.zeros(0), (NUM_ROWS, NUM_COLUMNS))

    actual = multiply_sparse(matrix, draw(NUM_COLUMNS, 10, dtype=torch.float32))

    assert torch.equal(actual, torch.zeros(NUM_ROWS, 10))


@by_kernel
def test_keeps_full_precision_under_autocast(is_bag, monkeypatch):
    monkeypatch.setattr(sparse_product, "is_faster_as_bag", lambda dense: is_bag)
    matrix, expected = build_matrices(torch.float32)
    states = draw(NUM_COLUMNS, 10, dtype=torch.float32)

    with torch.autocast("cpu", torch.bfloat16):
        actual = multiply_sparse(matrix, states)

    torch.testing.assert_close(actual, expected @ states, atol=5e-7, rtol=0)


@pytest.mark.parametrize("channels", [9, 20, 64, 128])
def test_sums_embeddings_where_that_is_faster(channels):
    assert is_faster_as_bag(torch.empty(2, channels))


@pytest.mark.parametrize(
    "dense",
    [
        torch.empty(2, 8),
        torch.empty(2, 16),
        torch.empty(2, 256),
        torch.empty(2, 64, dtype=torch.float64),
        torch.empty(2, 64, dtype=torch.bfloat16),
        torch.empty(2, 64, device="meta"),
    ],
    ids=["narrow", "sixteen", "wide", "float64", "bfloat16", "device"],
)
def test_takes_the_product_elsewhere(dense):
    assert not is_faster_as_bag(dense)


@by_kernel
@pytest.mark.parametrize("is_given", [False, True], ids=["made", "given"])
def test_gradients_of_first_and_second_order_are_those_of_differences(is_bag, is_given, monkeypatch):
    monkeypatch.setattr(sparse_product, "is_faster_as_bag", lambda dense: is_bag)
    matrix, _ = build_matrices(torch.float64)
    transposed = transpose_csr(matrix) if is_given else None
    states = draw(NUM_COLUMNS, 3, dtype=torch.float64).requires_grad_()

    def multiply(states: torch.Tensor) -> torch.Tensor:
        return SparseProduct.apply(states, matrix, transposed).sin()

    assert torch.autograd.gradcheck(multiply, states)
    assert torch.autograd.gradgradcheck(multiply, states)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_transpose(index_dtype):
    matrix, expected = build_matrices(torch.float64, index_dtype)

    actual = transpose_csr(matrix)

    assert actual.layout == torch.sparse_csr
    assert {actual.crow_indices().dtype, actual.col_indices().dtype} == {index_dtype}
    assert torch.equal(actual.to_dense(), expected.t())


def test_transpose_of_a_matrix_without_entries():
    rows, columns = torch.zeros(NUM_ROWS + 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)

    actual = transpose_csr(build_csr(rows, columns, torch.zeros(0), (NUM_ROWS, NUM_COLUMNS)))

    assert torch.equal(actual.crow_indices(), torch.zeros(NUM_COLUMNS + 1, dtype=torch.int32))
    assert actual.shape == (NUM_COLUMNS, NUM_ROWS)
