"""Matches of predicted and annotated boxes of one class, and the curves of precision and errors over recall."""

import itertools

import numpy as np

from .boxes import ATTRIBUTE, NO_ATTRIBUTE, VX, VY, WEIGHT, YAW, H, L, X, Y


NUM_RECALLS = 101
MIN_RECALL = 0.1
MIN_PRECISION = 0.1
FIRST = round((NUM_RECALLS - 1) * MIN_RECALL) + 1  # the first recall that counts
ERRORS = ("translation_error", "scale_error", "orientation_error", "velocity_error", "attribute_error")


def match_boxes(predictions, prediction_frames, references, reference_frames, thresholds):
    """For each threshold and prediction the index of its reference, or -1.

    In each frame the predictions choose in order of score, each the nearest reference that is still free, and match
    if that is nearer than the threshold. Frames do not depend on each other, so that the predictions of one rank
    choose in all frames at once.

    Args:
        predictions (array of rows): boxes of one class, ordered by falling score.
        prediction_frames (array of int): the frame of each.
        references (array of rows): annotated boxes of the class.
        reference_frames (array of int): the frame of each.
        thresholds (array of float): distances of centers in the ground plane, in meters.

    Returns:
        array of int of shape (num_thresholds, num_predictions).
    """
    matches = np.full((len(thresholds), len(predictions)), -1)
    frames, places = np.unique(reference_frames, return_inverse=True)
    width = np.bincount(places).max()
    order = np.argsort(places, kind="stable")
    table = np.full((len(frames), width), -1)  # references of each frame in their order, padded
    table[places[order], _rank(places[order])] = order
    centers = np.where(table[..., None] >= 0, references[table][..., X : Y + 1], np.inf)
    is_free = np.broadcast_to(table >= 0, (len(thresholds), *table.shape)).copy()

    position = np.searchsorted(frames, prediction_frames)
    is_known = frames[np.minimum(position, len(frames) - 1)] == prediction_frames
    candidates = np.flatnonzero(is_known)
    candidates = candidates[np.argsort(position[candidates], kind="stable")]
    ranks = _rank(position[candidates])
    by_rank = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[by_rank], np.arange(ranks.max(initial=-1) + 2))
    for start, stop in itertools.pairwise(starts):
        chosen = candidates[by_rank[start:stop]]
        rows = position[chosen]
        offsets = centers[rows] - predictions[chosen, None, X : Y + 1]
        distances = np.where(is_free[:, rows], np.sqrt((offsets**2).sum(axis=-1)), np.inf)
        nearest = distances.argmin(axis=-1)  # (num_thresholds, num_chosen)
        is_match = np.take_along_axis(distances, nearest[..., None], axis=-1)[..., 0] < thresholds[:, None]
        level, which = np.nonzero(is_match)
        taken = nearest[level, which]
        is_free[level, rows[which], taken] = False
        matches[level, chosen[which]] = table[rows[which], taken]
    return matches


def _rank(groups):
    """Position of each element in its group, of sorted groups."""
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]])) if len(groups) else groups
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(groups)]])))


def compute_errors(predictions, references, period):
    """The five errors of matched pairs `(num_errors, num_pairs)`; NaN where a reference leaves one undefined.

    Distance of centers in the ground plane (m), 1 - IoU of boxes laid over each other, difference of yaw (rad) with
    `period`, L2 norm of the difference of velocities (m/s), and 1 where the attribute is wrong.
    """
    offsets = predictions[:, X : Y + 1] - references[:, X : Y + 1]
    sizes, true_sizes = predictions[:, L : H + 1], references[:, L : H + 1]
    shared = np.minimum(sizes, true_sizes).prod(axis=1)
    union = sizes.prod(axis=1) + true_sizes.prod(axis=1) - shared
    turn = (references[:, YAW] - predictions[:, YAW] + period / 2) % period - period / 2
    velocity = predictions[:, VX : VY + 1] - references[:, VX : VY + 1]
    is_wrong = (predictions[:, ATTRIBUTE] != references[:, ATTRIBUTE]).astype(np.float64)
    return np.stack(
        [
            np.sqrt((offsets**2).sum(axis=1)),
            1 - shared / union,
            np.abs(turn),
            np.sqrt((velocity**2).sum(axis=1)),
            np.where(references[:, ATTRIBUTE] == NO_ATTRIBUTE, np.nan, is_wrong),
        ]
    )


def compute_precision(is_match, scores, num_references):
    """Precision and score at the recalls 0, 0.01, ..., 1, both 0 beyond the highest recall."""
    found = np.cumsum(is_match).astype(np.float64)
    precision, recall = found / np.arange(1, len(found) + 1), found / num_references
    grid = np.linspace(0, 1, NUM_RECALLS)
    return np.interp(grid, recall, precision, right=0), np.interp(grid, recall, scores, right=0)


def average_precision(precision):
    """Mean precision over recalls above 0.1, less 0.1, as a share of the most that is possible."""
    return float(np.clip(precision[FIRST:] - MIN_PRECISION, 0, None).mean()) / (1 - MIN_PRECISION)


def average_error(errors, match_scores, grid_scores):
    """Mean over recalls from 0.1 to the highest of the running mean of an error; 1 if no recall is above 0.1."""
    reached = np.flatnonzero(grid_scores)
    last = reached[-1] if len(reached) else 0
    if last < FIRST:
        return 1.0
    running = _running_mean(errors)
    resampled = np.interp(grid_scores[::-1], match_scores[::-1], running[::-1])[::-1]
    return float(resampled[FIRST : last + 1].mean())


def _running_mean(values):
    """Mean of the values so far that are not NaN; 0 before the first, and 1 throughout if there is none."""
    is_defined = ~np.isnan(values)
    if not is_defined.any():
        return np.ones(len(values))
    counts = np.cumsum(is_defined)
    return np.divide(np.nancumsum(values), counts, out=np.zeros(len(values)), where=counts > 0)


def measure_class(predictions, prediction_frames, references, reference_frames, thresholds, error_level, period):
    """Average precision by threshold, and the five errors at threshold number `error_level`, of one class.

    Both kinds of boxes are rows in the order of their frames. Of equal scores the later box chooses first, as in
    nuscenes-devkit.
    """
    order = np.argsort(predictions[:, WEIGHT], kind="stable")[::-1]
    predictions, prediction_frames = predictions[order], prediction_frames[order]
    average_precisions, errors = np.zeros(len(thresholds)), np.ones(len(ERRORS))
    if not len(references) or not len(predictions):
        return average_precisions, errors
    matches = match_boxes(predictions, prediction_frames, references, reference_frames, thresholds)
    scores = predictions[:, WEIGHT]
    for level, indices in enumerate(matches):
        is_match = indices >= 0
        if not is_match.any():
            continue
        precision, grid_scores = compute_precision(is_match, scores, len(references))
        average_precisions[level] = average_precision(precision)
        if level == error_level:
            pairs = compute_errors(predictions[is_match], references[indices[is_match]], period)
            errors = np.array([average_error(values, scores[is_match], grid_scores) for values in pairs])
    return average_precisions, errors
