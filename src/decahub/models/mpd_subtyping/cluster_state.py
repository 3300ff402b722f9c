"""What a fit found, as buffers of the model: enough to assign new patients, and nobody's data."""

import torch
from torch import nn

from .configuration_mpd_subtyping import MpdSubtypingConfig
from .consensus import NUM_BINS


NUM_QUANTILES = 101
NOVELTY_QUANTILE = 99  # a patient who is reconstructed worse than this percentile of the training patients is new


class ClusterState(nn.Module):
    """Clusters of each member, subtypes, and the spread of reconstruction errors.

    Args:
        config ([`MpdSubtypingConfig`]): sizes.

    Shapes:
        With M members, K base clusters, F fine clusters, S subtypes, L the largest embedding and p features:
        `latent_scale` `(M,)`, `centroids` `(M, K, L)`, `base_sizes` `(M, K)`, `vote_table` `(M, K, S)`,
        `fine_sizes` `(F,)`, `fine_similarity` `(F, F)`, `merge_map` `(F,)`, `merge_similarity` `(F - S,)`,
        `consensus_histogram` `(20,)`, `pac` `()`, `subtype_sizes` `(S,)`, `subtype_profile` `(S, p)`,
        `error_mean` and `error_sd` `(M,)`, `error_quantiles` `(101,)`, `fitted` `()`;
        on request `coassociation` `(patients, patients)`.
    """

    def __init__(self, config: MpdSubtypingConfig):
        super().__init__()
        shapes = get_buffer_shapes(config)
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("merge_map", torch.zeros(config.num_fine_clusters, dtype=torch.long))
        if config.store_coassociation:
            self.register_buffer("coassociation", torch.zeros(config.num_patients, config.num_patients))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fill(self, values: dict[str, torch.Tensor]) -> None:
        """Set every buffer; sizes may change, as the number of subtypes does."""
        for name, value in values.items():
            old = getattr(self, name)
            setattr(self, name, torch.as_tensor(value).to(old.device, old.dtype).contiguous())
        self.fitted.fill_(True)


def get_buffer_shapes(config: MpdSubtypingConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the buffers that hold real numbers."""
    members, clusters, fine = config.num_members, config.base_num_clusters, config.num_fine_clusters
    subtypes = config.fitted_subtypes
    return {
        "latent_scale": (members,),
        "centroids": (members, clusters, config.latent_dims[-1]),
        "base_sizes": (members, clusters),
        "vote_table": (members, clusters, subtypes),
        "fine_sizes": (fine,),
        "fine_similarity": (fine, fine),
        "merge_similarity": (fine - subtypes,),
        "consensus_histogram": (NUM_BINS,),
        "pac": (),
        "subtype_sizes": (subtypes,),
        "subtype_profile": (subtypes, config.num_features),
        "error_mean": (members,),
        "error_sd": (members,),
        "error_quantiles": (NUM_QUANTILES,),
    }


def compute_votes(
    embeddings: torch.Tensor, state: ClusterState, temperature: float | None = None, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Probability of each subtype: mean over members of the votes of the nearest base cluster.

    Args:
        embeddings (`torch.Tensor` of shape `(members, rows, size)`): as the members give them.
        state ([`ClusterState`]): centroids, scales and votes.
        temperature (`float`, *optional*): weigh all clusters by softmax(-distance^2 / temperature) instead.
        mask (`torch.BoolTensor` of shape `(members,)`, *optional*): members that vote.

    Returns:
        `torch.Tensor` of shape `(rows, subtypes)`.
    """
    scaled = embeddings / state.latent_scale[:, None, None]
    distances = (scaled.unsqueeze(2) - state.centroids.unsqueeze(1)).square().sum(-1)  # (members, rows, clusters)
    distances = distances.masked_fill((state.base_sizes == 0).unsqueeze(1), torch.inf)
    if temperature is None:
        weights = nn.functional.one_hot(distances.argmin(-1), distances.shape[-1]).to(embeddings.dtype)
    else:
        weights = (-distances / temperature).softmax(-1)
    votes = weights @ state.vote_table
    if mask is None:
        return votes.mean(0)
    return votes[mask].mean(0)


__all__ = ["NOVELTY_QUANTILE", "ClusterState", "compute_votes"]
