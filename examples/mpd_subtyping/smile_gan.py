"""SmileGAN, a peer that learns how controls become patients of each subtype; needs the package `SmileGAN`.

Z. Yang et al., "A deep learning framework identifies dimensional representations of Alzheimer's Disease from brain
structure", Nature Communications 2021.
"""

import io
from contextlib import redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from decahub.data.mpd_synthetic import CONTROL, FEATURE_PATTERNS, Cohort


# The authors' advice: a distance of 0.11 to 0.14, 1/20 of the patients, a loss of 0.0015 to 0.002, and a batch of
# 1/20 to 1/10 of the patients.
MAX_DISTANCE, MAX_CHANGED_SHARE, MAX_CLUSTER_LOSS, BATCH_SIZE = 0.14, 1 / 20, 0.002, 25
# They advise to try 1 to 7. With 5, their default, the groups of generated patients become one in these cohorts.
CHANGE_WEIGHT = 3
# Their example trains for 9,000 to 14,000 epochs, ten times.
FIRST_EPOCH, MAX_EPOCHS = 600, 1200
MAX_STARTS = 10


def build_tables(cohort: Cohort) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features, and age, sex and site as numbers, each after `participant_id` and `diagnosis` (1: patient)."""
    columns = cohort.columns
    names = [name for name in columns if any(fnmatch(name, pattern) for pattern in FEATURE_PATTERNS)]
    people = {"participant_id": columns["id"], "diagnosis": np.where(columns["group"] == CONTROL, -1, 1)}
    sites = pd.get_dummies(pd.Series(columns["site"]), drop_first=True, dtype=float)
    covariates = {"age": columns["age"], "sex": (columns["sex"] == "M").astype(float), **dict(sites.items())}
    return pd.DataFrame({**people, **{name: columns[name] for name in names}}), pd.DataFrame({**people, **covariates})


def find_subtypes(cohort: Cohort, seed: int) -> tuple[np.ndarray, bool]:
    """Subtype of each patient by one model, and whether it met the authors' rule for stopping.

    Their function starts again until the rule is met. Here a model that has not met it at the last epoch is taken as
    it is; one that cannot tell its generated groups apart for 50 epochs starts again.

    Raises:
        RuntimeError: If no start of `MAX_STARTS` gets beyond that.
    """
    from SmileGAN.clustering import Smile_GAN_train
    from SmileGAN.Smile_GAN_clustering import clustering_result

    features, covariates = build_tables(cohort)
    trainer = Smile_GAN_train(
        int(cohort.subtypes.max()) + 1,
        FIRST_EPOCH,
        MAX_EPOCHS,
        MAX_DISTANCE,
        MAX_CHANGED_SHARE * len(cohort.subtypes),
        MAX_CLUSTER_LOSS,
        mu=CHANGE_WEIGHT,
        batchSize=BATCH_SIZE,
        eval_freq=5,
        save_epoch_freq=MAX_EPOCHS,  # as "latest"; only when `verbose`
    )
    # Its files hold arrays, which torch.load refuses since 2.6 unless they are named.
    arrays = [np.zeros(1).__reduce__()[0], np.ndarray, np.dtype, type(np.dtype(np.float64))]
    with TemporaryDirectory() as folder, torch.random.fork_rng(), redirect_stdout(io.StringIO()):
        torch.manual_seed(seed)
        for _ in range(MAX_STARTS):
            converged = trainer.train("converged", features, covariates, folder, random_seed=seed, verbose=True)
            path = Path(folder) / ("converged" if converged else "latest")
            if path.exists():
                with torch.serialization.safe_globals(arrays):
                    labels, *_ = clustering_result([str(path)], "highest_matching_clustering", features, covariates)
                return labels, converged
    raise RuntimeError(
        f"`CHANGE_WEIGHT` must be lower; got {CHANGE_WEIGHT}, with which all patients become one group."
    )
