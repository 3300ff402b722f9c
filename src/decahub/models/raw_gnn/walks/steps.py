"""One step of second-order random walks: its law, its exact probabilities, and drawing it for many walkers at once.

With t the previous node and v the current one, a neighbor x of v is taken with a weight of 1/p if x is t, 1 if x is a
neighbor of t, and 1/q otherwise ("node2vec: Scalable Feature Learning for Networks", arXiv 1607.00653, section 3.2).
The compiled sampler of torch-cluster follows another law: it asks the three cases one after another, and each of them
may accept, so that the largest weight that applies wins.
"""

from dataclasses import dataclass

import torch

from .draws import Draws
from .graph import WalkGraph


LAWS = ("node2vec", "torch_cluster")
MIN_PARAMETER, MAX_PARAMETER = 1e-12, 1e12  # beyond these, 53 random bits do not resolve the smaller weights

# Rejection pays where rows are long; what it leaves over is enumerated. These numbers were measured. They change no
# law, but they decide which draw is used: with other numbers a seed gives other walks.
MAX_ATTEMPTS = 8
MAX_ATTEMPTS_OUTWARD = 2  # where nothing outweighs the far neighbors, which are most: few darts miss
NEIGHBORS_PER_ATTEMPT = 2
DRAWS_PER_STEP = MAX_ATTEMPTS + 1
MAX_CANDIDATES = 2**18  # enumerated at once, besides those of one pair of nodes: bounds the memory near hubs


@dataclass(frozen=True)
class StepWeights:
    """Unnormalized weights of a candidate, by its relation to the previous node."""

    back: float  # it is the previous node
    back_looped: float  # it is the previous node, which is a neighbor of itself
    near: float  # it is another neighbor of the previous node
    far: float

    @classmethod
    def of(cls, p: float, q: float, law: str) -> "StepWeights":
        for name, value in (("p", p), ("q", q)):
            if not MIN_PARAMETER <= value <= MAX_PARAMETER:
                raise ValueError(f"`{name}` must be in [{MIN_PARAMETER}, {MAX_PARAMETER}]; got {value!r}.")
        if law not in LAWS:
            raise ValueError(f"`law` must be one of {list(LAWS)}; got {law!r}.")
        back, near, far = 1 / p, 1.0, 1 / q
        if law == "node2vec":
            return cls(back, back, near, far)
        return cls(max(back, far), max(back, near, far), max(near, far), far)

    @property
    def is_uniform(self) -> bool:
        return self.back == self.back_looped == self.near == self.far

    @property
    def max_attempts(self) -> int:
        """Most darts that a walker throws before its neighbors are enumerated."""
        return MAX_ATTEMPTS_OUTWARD if self.far >= max(self.near, self.back, self.back_looped) else MAX_ATTEMPTS

    def of_others(self, is_near: torch.Tensor) -> torch.Tensor:
        """Weight of each candidate that is not the previous node."""
        return choose_weight(is_near, self.near, self.far)

    def of_previous(self, graph: WalkGraph, previous: torch.Tensor) -> torch.Tensor:
        """Weight of going back to each of the previous nodes."""
        return choose_weight(take(graph.has_self_loop, previous), self.back_looped, self.back)


def choose_weight(condition: torch.Tensor, if_true: float, if_false: float) -> torch.Tensor:
    # A bare Python number would be rounded to torch's default type.
    return torch.where(condition, torch.tensor(if_true, dtype=torch.float64, device=condition.device), if_false)


def first_step_probabilities(graph: WalkGraph, current: int) -> torch.Tensor:
    """Probability of each node after the start node `current`: uniform over its neighbors, itself if it has none.

    Returns:
        `torch.DoubleTensor` of shape `(num_nodes,)`.
    """
    graph.check_nodes("current", torch.tensor([current]))
    probabilities = torch.zeros(graph.num_nodes, dtype=torch.float64)
    neighbors = graph.neighbors_of(current).cpu()
    if neighbors.numel() == 0:
        probabilities[current] = 1
    else:
        probabilities[neighbors] = 1 / neighbors.numel()
    return probabilities


def transition_probabilities(
    graph: WalkGraph, previous: int, current: int, p: float, q: float, law: str = "node2vec"
) -> torch.Tensor:
    """Exact probability of each next node, after the walk went from `previous` to `current`.

    Args:
        graph ([`WalkGraph`]): the graph.
        previous (`int`): node id.
        current (`int`): node id.
        p (`float`): return parameter; large values avoid the previous node.
        q (`float`): in-out parameter; large values stay near the previous node.
        law (`str`): `"node2vec"`, or `"torch_cluster"` for the law that the compiled sampler of that library follows.

    Returns:
        `torch.DoubleTensor` of shape `(num_nodes,)`; all zeros if there is no edge from `previous` to `current`.

    Raises:
        ValueError: If an argument is outside its range.
    """
    graph.check_nodes("previous", torch.tensor([previous]))
    graph.check_nodes("current", torch.tensor([current]))
    weights = StepWeights.of(p, q, law)
    probabilities = torch.zeros(graph.num_nodes, dtype=torch.float64)
    candidates, around = graph.neighbors_of(current).cpu(), graph.neighbors_of(previous).cpu()
    if current not in around:
        return probabilities
    if candidates.numel() == 0:
        return first_step_probabilities(graph, current)
    probabilities[candidates] = weights.of_others(torch.isin(candidates, around))
    if previous in candidates:
        probabilities[previous] = weights.back_looped if previous in around else weights.back
    return probabilities / probabilities.sum()


def step_uniformly(graph: WalkGraph, current: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The next node of each walker, every neighbor alike; a walker without neighbors stays."""
    degrees = take(graph.degrees, current)
    index = (draws.uniform(0) * degrees).long()
    walkers = list_true(degrees > 0)
    following = current.clone()
    following[walkers] = take(graph.neighbors, take(take(graph.row_pointers, current) + index, walkers))
    return following


def step_second_order(
    graph: WalkGraph, previous: torch.Tensor, current: torch.Tensor, weights: StepWeights, draws: Draws
) -> torch.Tensor:
    """A few rounds of rejection sampling, then enumeration for the walkers that still have no next node."""
    following = current.clone()
    degrees = take(graph.degrees, current)
    shorter = torch.minimum(degrees, take(graph.degrees, previous))
    # A walker's number of attempts depends on its own nodes only; else its walk would depend on the others.
    attempts = (shorter // NEIGHBORS_PER_ATTEMPT).clamp_(max=weights.max_attempts)
    attempts[degrees == 0] = -1
    for attempt in range(weights.max_attempts):
        walkers = list_true(attempts > attempt)
        if walkers.numel() == 0:
            break
        pairs = WalkerPairs.of(graph, previous, current, weights, walkers)
        proposed, accepted = propose(graph, pairs, weights, draws.uniform(attempt, walkers))
        accepted = list_true(accepted)
        decided = take(walkers, accepted)
        following[decided] = take(proposed, accepted)
        attempts[decided] = -1
    walkers = list_true(attempts >= 0)
    for chunk in split_by_size(walkers, take(shorter, walkers), MAX_CANDIDATES):
        pairs = WalkerPairs.of(graph, previous, current, weights, chunk)
        following[chunk] = choose_by_enumeration(graph, pairs, weights, draws.uniform(MAX_ATTEMPTS, chunk))
    return following


@dataclass(frozen=True)
class WalkerPairs:
    """Where some walkers are, and what that says about their next step; each field has the shape `(num_walkers,)`."""

    previous: torch.Tensor
    current: torch.Tensor
    row_start: torch.Tensor  # of `current`, in `neighbors`
    degree: torch.Tensor  # of `current`
    back: torch.Tensor  # weight of the previous node

    @classmethod
    def of(
        cls,
        graph: WalkGraph,
        previous: torch.Tensor,
        current: torch.Tensor,
        weights: StepWeights,
        walkers: torch.Tensor,
    ) -> "WalkerPairs":
        previous, current = take(previous, walkers), take(current, walkers)
        row_start, degree = take(graph.row_pointers, current), take(graph.degrees, current)
        return cls(previous, current, row_start, degree, weights.of_previous(graph, previous))


def propose(
    graph: WalkGraph, pairs: WalkerPairs, weights: StepWeights, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Throws a dart at a board with one column for each neighbor, as high as the largest weight of `near` and `far`.

    Where the previous node weighs more than that, the rest of its weight lies beside the columns: without this, a
    small `p` would make nearly all darts miss.
    """
    height = max(weights.near, weights.far)
    beside = (pairs.back - height).clamp_(min=0) / height  # in columns
    dart = uniform * (pairs.degree + beside)
    column = dart.long()
    is_beside = column >= pairs.degree
    candidate = take(graph.neighbors, pairs.row_start + torch.minimum(column, pairs.degree - 1))
    if max(weights.back, weights.back_looped) <= height:  # then nothing is beside
        is_near = graph.has_edges(pairs.previous, candidate)
        weight = torch.where(candidate == pairs.previous, pairs.back, weights.of_others(is_near))
        return candidate, (dart - column) * height < weight
    # One search serves both questions: beside the columns, whether there is an edge back; else, whether x is near.
    found = graph.has_edges(
        torch.where(is_beside, pairs.current, pairs.previous), torch.where(is_beside, pairs.previous, candidate)
    )
    weight = torch.where(candidate == pairs.previous, pairs.back, weights.of_others(found))
    accepted = torch.where(is_beside, found, (dart - column) * height < weight)
    return torch.where(is_beside, pairs.previous, candidate), accepted


def choose_by_enumeration(
    graph: WalkGraph, pairs: WalkerPairs, weights: StepWeights, uniform: torch.Tensor
) -> torch.Tensor:
    """Draws the kind of the next node by its exact weight, then a member of that kind by its number.

    Everything that is summed over a batch is an integer: sums of floating-point numbers would depend on the batch.
    """
    owner, column = find_near_columns(graph, pairs)
    num_near = owner.bincount(minlength=pairs.current.numel())
    first = num_near.cumsum(0) - num_near
    goes_back, back_place = graph.find_edges(pairs.current, pairs.previous)
    has_back = torch.zeros_like(pairs.current, dtype=torch.bool)
    has_back[goes_back] = True
    back_column = torch.zeros_like(pairs.current)
    back_column[goes_back] = back_place - take(pairs.row_start, goes_back)
    num_far = pairs.degree - num_near - has_back.long()

    back, near, far = pairs.back * has_back, weights.near * num_near, weights.far * num_far
    dart = uniform * (back + near + far)
    # A kind without members is asked for them: rounding may push a dart past the end of the last kind that has some.
    takes_far = (num_far > 0) & (dart >= back + near)
    takes_near = (num_near > 0) & (dart >= back) & ~takes_far

    near_number = number_in_kind(dart - back, weights.near, num_near)
    far_number = number_in_kind(dart - back - near, weights.far, num_far)
    column_or_none = torch.nn.functional.pad(column, (0, 1))  # so that there is one to take where nothing is near
    near_column = take(column_or_none, first + near_number)
    far_column = skip_columns(far_number, owner, column, first, has_back, back_column)
    chosen = torch.where(takes_near, near_column, far_column)
    chosen = take(graph.neighbors, pairs.row_start + torch.minimum(chosen, pairs.degree - 1))
    return torch.where(takes_near | takes_far, chosen, pairs.previous)


def find_near_columns(graph: WalkGraph, pairs: WalkerPairs) -> tuple[torch.Tensor, torch.Tensor]:
    """For each pair, the neighbors of `current` that are neighbors of `previous` too, and not `previous` itself.

    Of the two rows only the shorter is enumerated, and its nodes are searched in the longer one: a hub costs what its
    small neighbors cost.

    Returns:
        `tuple` of two `torch.LongTensor` of shape `(num_near,)`: number of the pair, ascending, and column within the
        row of `current`, ascending for each pair.
    """
    previous_degree = take(graph.degrees, pairs.previous)
    through_current = pairs.degree <= previous_degree
    row_start = torch.where(through_current, pairs.row_start, take(graph.row_pointers, pairs.previous))
    searched = torch.where(through_current, pairs.previous, pairs.current)
    counts = torch.minimum(pairs.degree, previous_degree)
    owner = torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts)
    row_start = row_start - (counts.cumsum(0) - counts)
    place = take(row_start, owner) + torch.arange(owner.numel(), device=owner.device)
    candidate = take(graph.neighbors, place)
    found, found_place = graph.find_edges(take(searched, owner), candidate)
    owner = take(owner, found)
    place = torch.where(take(through_current, owner), take(place, found), found_place)
    near = list_true(take(candidate, found) != take(pairs.previous, owner))
    owner, place = take(owner, near), take(place, near)
    return owner, place - take(pairs.row_start, owner)


def number_in_kind(dart: torch.Tensor, weight: float, num_members: torch.Tensor) -> torch.Tensor:
    """Which of `num_members` equally wide members a dart hits; rounding must not push it over either end."""
    return torch.minimum(dart / weight, num_members - 1).clamp_(min=0).long()


def skip_columns(
    number: torch.Tensor,
    owner: torch.Tensor,
    column: torch.Tensor,
    first: torch.Tensor,
    has_back: torch.Tensor,
    back_column: torch.Tensor,
) -> torch.Tensor:
    """The column of the neighbor with a given number among those that are neither near nor the previous node."""
    near_before_back = count_owned(column < take(back_column, owner), owner, first.numel())
    number = number + (has_back & (number >= back_column - near_before_back)).long()
    # The i-th near column has (column - i) others to its left.
    others_before = column - (torch.arange(column.numel(), device=column.device) - take(first, owner))
    return number + count_owned(others_before <= take(number, owner), owner, first.numel())


def take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`values[index]` for one dimension, several times as fast."""
    return values.index_select(0, index)


def list_true(flags: torch.Tensor) -> torch.Tensor:
    return flags.nonzero().squeeze(1)


def count_owned(flags: torch.Tensor, owner: torch.Tensor, num_owners: int) -> torch.Tensor:
    return take(owner, list_true(flags)).bincount(minlength=num_owners)


def split_by_size(items: torch.Tensor, sizes: torch.Tensor, limit: int) -> tuple[torch.Tensor, ...]:
    """Consecutive chunks of `items`; the sizes of a chunk, without its last, sum to less than `limit`."""
    if items.numel() == 0:
        return ()
    chunk = (sizes.cumsum(0) - sizes).div(limit, rounding_mode="floor")
    return items.split(chunk.unique_consecutive(return_counts=True)[1].tolist())


__all__ = [
    "DRAWS_PER_STEP",
    "LAWS",
    "StepWeights",
    "first_step_probabilities",
    "step_second_order",
    "step_uniformly",
    "transition_probabilities",
]
