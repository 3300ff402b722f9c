"""One-to-one matching of predictions and targets at the least total cost (Hungarian algorithm, as in DETR).

Costs are functions of the room: distances of boxes, overlaps of masks, scores of classes.
"""

from collections.abc import Sequence

import torch


try:  # optional, since a room that is loaded as remote code may not need it
    from scipy.optimize import linear_sum_assignment
except ImportError:
    linear_sum_assignment = None


COST_LIMIT = 1e8  # far above any cost, and small enough that sums keep the digits of the others


@torch.no_grad()
def match_sets(costs: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of predictions and targets of each sample, such that the sum of their costs is least.

    Positive infinity and everything above 1e8 count as 1e8, so that such a pair is taken only where there is no other.

    Args:
        costs (`Sequence[torch.Tensor]`): for each sample a matrix of shape `(num_predictions, num_targets)`, on any
            device; either number may be 0.

    Returns:
        `list` of pairs of `torch.LongTensor` of shape `(min(num_predictions, num_targets),)`: indices of predictions,
        ascending, and those of their targets, on the device of the costs.

    Raises:
        ImportError: If scipy is not installed.
        ValueError: If a matrix has another number of axes, or holds NaN or negative infinity.
    """
    if linear_sum_assignment is None:
        raise ImportError("Matching requires scipy. Install it with `pip install scipy`.")
    pairs = []
    for sample, cost in enumerate(costs):
        if cost.ndim != 2:
            raise ValueError(
                f"`costs` must hold matrices (num_predictions, num_targets); got shape {tuple(cost.shape)} for sample "
                f"{sample}."
            )
        matrix = cost.detach().to("cpu", torch.float64)
        invalid = torch.isnan(matrix) | torch.isneginf(matrix)
        if invalid.any():
            prediction, target = invalid.nonzero()[0].tolist()
            raise ValueError(
                f"`costs` must not hold NaN or negative infinity; got {matrix[prediction, target].item()} for "
                f"prediction {prediction} and target {target} of sample {sample}. Are all predictions finite?"
            )
        rows, columns = linear_sum_assignment(matrix.clamp(max=COST_LIMIT).numpy())
        pairs.append((torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)))
    return pairs
