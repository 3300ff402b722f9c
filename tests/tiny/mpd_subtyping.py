"""The smallest MPD subtyping ensemble whose sizes all differ, and a table with two clear groups of patients."""

import numpy as np
import torch

from decahub.models.mpd_subtyping.configuration_mpd_subtyping import MpdSubtypingConfig


NUM_FEATURES, NUM_PATIENTS, NUM_CONTROLS = 12, 40, 31


def build_tiny_config(**overrides):
    fields = {
        "num_features": NUM_FEATURES,
        "hidden_sizes": [7],
        "latent_dims": [2, 3, 5],
        "num_runs": 2,
        "base_num_clusters": 4,
        "num_fine_clusters": 4,
        "seed": 3,
    }
    return MpdSubtypingConfig(**{**fields, **overrides})


def build_tiny_features(num_patients=NUM_PATIENTS, num_features=NUM_FEATURES, gap=6.0, seed=0):
    """Patients in standard deviations of controls: the first three fifths high in half of the features, others low."""
    generator = torch.Generator().manual_seed(seed)
    features = 0.2 + torch.randn(num_patients, num_features, generator=generator)
    first = round(0.6 * num_patients)
    features[:first, : num_features // 2] += 0.4 * gap
    features[first:, : num_features // 2] -= 0.6 * gap
    return features


def build_tiny_table(num_patients=NUM_PATIENTS, num_controls=NUM_CONTROLS, seed=0):
    """Columns of a table: id, group, age, sex, site and features with effects of age and site, patients first."""
    generator = np.random.default_rng(seed)
    number = num_patients + num_controls
    age, sex = generator.uniform(18, 60, number), generator.integers(0, 2, number)
    site = generator.integers(0, 3, number)
    features = 5 + 2 * generator.normal(size=(number, NUM_FEATURES)) + 0.05 * age[:, None] + 0.7 * site[:, None]
    features[:num_patients] += 2 * build_tiny_features(num_patients, seed=seed).numpy()
    return {
        "id": np.array([f"p{index:03d}" for index in range(number)]),
        "group": np.array(
            ["SZ", "BD"] * (num_patients // 2) + ["SZ"] * (num_patients % 2) + ["control"] * num_controls
        ),
        "age": age,
        "sex": np.where(sex == 1, "M", "F"),
        "site": np.array([f"site{index}" for index in site]),
        **{f"roi_{index}": column for index, column in enumerate(features.T)},
    }
