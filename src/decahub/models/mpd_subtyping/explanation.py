"""Which features speak for a subtype, and which subtypes of two models belong together."""

from typing import Any

import torch


try:
    from scipy.optimize import linear_sum_assignment
except ImportError as error:
    raise ImportError('Matching subtypes needs scipy: pip install "decahub[mpd_subtyping]".') from error


@torch.no_grad()
def explain_assignment(model: Any, features: torch.Tensor) -> list[dict[str, Any]]:
    """See `MpdSubtypingModel.explain`."""
    config, profiles = model.config, model.cluster.subtype_profile
    was_training = model.training
    model.eval()
    try:
        output = model(features)
    finally:
        model.train(was_training)
    terms = (features.unsqueeze(1) - profiles).square()  # (rows, subtypes, features)
    distances = terms.sum(-1)
    names = config.feature_names or [f"feature_{index}" for index in range(config.num_features)]
    answers = []
    for row, subtype in enumerate(output.subtypes.tolist()):
        answer = {
            "subtype": config.id2label[subtype],
            "features": dict(zip(names, features[row].tolist(), strict=True)),
        }
        if len(profiles) > 1:
            others = distances[row].clone()
            others[subtype] = torch.inf
            runner_up = int(others.argmin())
            contributions = terms[row, runner_up] - terms[row, subtype]
            answer |= {
                "runner_up": config.id2label[runner_up],
                "margin": float(contributions.sum()),
                "contributions": dict(zip(names, contributions.tolist(), strict=True)),
            }
        answers.append(answer)
    return answers


def match_profiles(first: torch.Tensor, second: torch.Tensor) -> dict[int, int]:
    """Pairs of rows with the largest total correlation (Hungarian method); rows that are left over have no partner."""
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"`other` must have the same features ({first.shape[1]}); got {second.shape[1]}.")

    def standardize(profiles: torch.Tensor) -> torch.Tensor:
        centered = profiles.double() - profiles.double().mean(1, keepdim=True)
        return centered / centered.norm(dim=1, keepdim=True).clamp_min(1e-12)

    correlation = standardize(first) @ standardize(second).T
    rows, columns = linear_sum_assignment(-correlation.cpu().numpy())
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


__all__ = ["explain_assignment", "match_profiles"]
