"""Are these subtypes real? Stability, significance, discreteness, generalization, external validity, one verdict."""

import warnings

import datasets
import evaluate
import numpy as np

from .checks import (
    FAIL,
    NOT_APPLICABLE,
    PASS,
    Study,
    check_diagnosis,
    check_dip,
    check_external,
    check_gap,
    check_jaccard,
    check_members,
    check_mixture,
    check_nuisance,
    check_pipeline_null,
    check_prediction_strength,
    check_representation,
    check_significance,
    check_sites,
    check_subsampling,
    check_transfer,
    check_tree,
)
from .discreteness import draw_scores
from .external import regress_out
from .partitions import canonical_labels, cluster_kmeans, cluster_ward
from .significance import COVARIANCES


_DESCRIPTION = """
Checks of a partition of patients into subtypes. None looks at a true label, since there is none.

- Stability: "jaccard" (bootstrap, Hennig 2007), "subsampling", "members" (runs and embedding sizes).
- Significance: "significance" (SigClust), "tree" (its hierarchical form), "pipeline_null" (the method on Gaussian
  patients), "gap".
- Discreteness, clusters or continuum: "mixture" and "dip" on cross-fitted discriminant scores.
- Generalization: "prediction_strength", "assignment_transfer", "leave_site_out".
- "representation": error of the autoencoders on unseen patients, beside principal components.
- External validity: "external", "nuisance", "diagnosis".

The verdict is a fixed rule. "discrete subtypes supported": significance, mixture, jaccard and prediction strength
pass, and no nuisance goes along with the subtypes. "stable partition of a continuum": jaccard and prediction strength
pass, the mixture test does not. "not supported" otherwise. It says what the data show, and is no diagnosis.
"naive_verdict" is what significance and jaccard alone would have claimed.
"""

_INPUTS = """
Args:
    features (array of shape (num_patients, num_features)): features of patients, as deviations from controls.
    labels (array of shape (num_patients,)): subtypes.
    model (optional): a fitted `MpdSubtypingModel`; gives the clusterer of resampling.
    clusterer (optional): "ward", "kmeans" or a function `(features, seed, num_subtypes) -> labels`; by default that of
        the model, else "ward".
    refit (str, optional): with a model: "frozen" keeps its members, "linear" takes principal components, "full" trains
        anew; by default "full" for small tables and "linear" otherwise.
    checks (list of str, optional): which checks; by default all.
    quick (bool, optional, defaults to False): fewer repetitions.
    clinical, nuisance (dict, optional): measures of the patients by name.
    kinds (dict, optional): "continuous", "ordinal" or "categorical" for measures by name.
    diagnosis, site (array, optional): of the patients.
    fit_report (dict, optional): what the fit returned, for "members".
    transfer (optional): `transfer(train_rows, test_rows) -> (assigned, own)` with the whole procedure, for
        "assignment_transfer" and "leave_site_out".
    training (dict, optional): arguments of the training of members, for refit="full" and "representation".
    covariance (str, optional): of SigClust: "sample", "hard" or "soft".
    num_controls (int, optional): controls behind the features; fewer than 20 refuse the verdict.
    seed (int, optional, defaults to 0): of every draw.

Returns:
    dict: "verdict", "naive_verdict", "sentences", "refit", "checks" (by name: values, repetitions, seed, rule,
    outcome, sentence), "scores" (the main values as numbers).
"""

_CITATION = """
@article{chang2021mpd, title={Identifying and validating subtypes within major psychiatric disorders based on
frontal-posterior functional imbalance via deep learning}, journal={Molecular Psychiatry}, year={2021}}
"""

CHECKS = (
    "jaccard", "subsampling", "members", "significance", "tree", "pipeline_null", "gap", "mixture", "dip",
    "prediction_strength", "assignment_transfer", "leave_site_out", "representation", "external", "nuisance",
    "diagnosis",
)  # fmt: skip
CORE = ("jaccard", "significance", "mixture", "prediction_strength", "nuisance")
REPETITIONS = {
    "jaccard": 100, "subsampling": 100, "significance": 1000, "tree": 1000, "pipeline_null": 99, "gap": 100,
    "splits": 5, "mixture": 199, "prediction_strength": 50, "assignment_transfer": 10, "representation": 5,
    "external": 9999, "nuisance": 9999, "diagnosis": 9999,
}  # fmt: skip
QUICK_REPETITIONS = {
    "jaccard": 30, "subsampling": 30, "significance": 199, "tree": 100, "pipeline_null": 19, "gap": 20, "splits": 5,
    "mixture": 199, "prediction_strength": 20, "assignment_transfer": 1, "representation": 1, "external": 999,
    "nuisance": 999, "diagnosis": 999,
}  # fmt: skip
LEAST_PATIENTS, LEAST_CONTROLS = 30, 20
MAX_FULL_REFIT = 250_000  # patients x features x members; a refit of more takes more than a second
DISCRETE, CONTINUUM, UNSUPPORTED = "discrete subtypes supported", "stable partition of a continuum", "not supported"
REFUSED = "no verdict: too few people"
CLUSTERERS = {"ward": cluster_ward, "kmeans": cluster_kmeans}


def decide(checks, num_patients, num_controls=None):
    """The verdict, and what significance and bootstrap stability alone would have claimed.

    Args:
        checks (dict): records by name.
        num_patients (int): number of patients.
        num_controls (int, optional): number of controls.

    Returns:
        tuple: verdict and naive verdict; `None` where a check that they need was not made.
    """
    outcomes = {name: checks.get(name, {}).get("outcome") for name in CORE}
    naive = None
    if outcomes["significance"] and outcomes["jaccard"]:
        claimed = outcomes["significance"] == outcomes["jaccard"] == PASS
        naive = "subtypes claimed" if claimed else "no subtypes claimed"
    if num_patients < LEAST_PATIENTS or (num_controls is not None and num_controls < LEAST_CONTROLS):
        return REFUSED, naive
    needed = ("jaccard", "prediction_strength", "significance", "mixture")
    if any(outcomes[name] is None for name in needed):
        return None, naive
    stable = outcomes["jaccard"] == outcomes["prediction_strength"] == PASS
    if stable and outcomes["significance"] == outcomes["mixture"] == PASS and outcomes["nuisance"] != FAIL:
        return DISCRETE, naive
    if stable and outcomes["mixture"] == FAIL:
        return CONTINUUM, naive
    return UNSUPPORTED, naive


def explain(verdict, checks):
    """The verdict in sentences: what was found, and what it does not say."""
    if verdict is None:
        return ["Not all checks that the verdict needs were made."]
    lines = {
        DISCRETE: "The patients fall into discrete subtypes by every check of the rule.",
        CONTINUUM: "The partition is stable, but no gap separates its parts: it may cut a continuum in pieces.",
        UNSUPPORTED: "The data do not support these subtypes.",
        REFUSED: f"With fewer than {LEAST_PATIENTS} patients or {LEAST_CONTROLS} controls no verdict is given.",
    }
    sentences = [lines[verdict]]
    sentences += [record["sentence"] for name, record in checks.items() if name in CORE]
    if checks.get("nuisance", {}).get("outcome") == NOT_APPLICABLE:
        sentences.append("Whether site, motion or other nuisance made the subtypes was not tested.")
    sentences.append(
        "This describes a group of patients in one table. It is not a diagnosis, and none can be based on it."
    )
    return sentences


class SubtypeValidity(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                features=datasets.Sequence(datasets.Value("float64")), labels=datasets.Value("int64")
            ),
        )

    def _compute(self, features, labels, **options):
        return self.measure(features=features, labels=labels, **options)

    def measure(
        self,
        *,
        features,
        labels,
        model=None,
        clusterer=None,
        refit=None,
        checks=None,
        quick=False,
        clinical=None,
        nuisance=None,
        kinds=None,
        diagnosis=None,
        site=None,
        fit_report=None,
        transfer=None,
        training=None,
        covariance=None,
        num_controls=None,
        repetitions=None,
        seed=0,
    ):
        """The scores of `compute` at once, nothing stored."""
        features, labels = _read(features, labels)
        checks, counts = read_options(checks, quick, repetitions, covariance)
        site, diagnosis = (_read_column(values, len(labels)) for values in (site, diagnosis))
        clinical, nuisance = (_read_table(name, table, len(labels)) for name, table in
                              (("clinical", clinical), ("nuisance", nuisance)))  # fmt: skip
        cluster, refit = _build_clusterer(model, clusterer, refit, features, training)
        study = Study(features, labels, cluster, counts, seed, site)
        records = {}
        if study.num_subtypes > 1:
            records = self._run(study, checks, model, fit_report, transfer, training, covariance)
        else:
            reason = "There is one subtype, so there is no partition to check."
            records = {name: study.skip(name, reason) for name in checks if name not in ("external", "nuisance")}
        if study.num_subtypes > 1:
            if "external" in checks:
                records["external"] = check_external(study, clinical, kinds)
            if "nuisance" in checks:
                records["nuisance"] = check_nuisance(study, nuisance, kinds)
            if "diagnosis" in checks:
                records["diagnosis"] = check_diagnosis(study, diagnosis)
        verdict, naive = decide(records, len(labels), num_controls)
        result = {
            "verdict": UNSUPPORTED if study.num_subtypes == 1 else verdict,
            "naive_verdict": naive,
            "sentences": explain(verdict, records),
            "num_patients": len(labels),
            "num_subtypes": study.num_subtypes,
            "subtype_sizes": np.bincount(labels).tolist(),
            "refit": refit,
            "quick": bool(quick),
            "seed": seed,
            "checks": records,
            "scores": summarize(records),
        }
        if nuisance and not quick and "nuisance" in checks and study.num_subtypes > 1:
            result["after_regression"] = self._repeat_without(study, nuisance, kinds, refit, covariance)
        return result

    def _run(self, study, checks, model, fit_report, transfer, training, covariance):
        scores = draw_scores(study) if {"mixture", "dip"} & set(checks) else None
        run = {
            "jaccard": lambda: check_jaccard(study),
            "subsampling": lambda: check_subsampling(study),
            "members": lambda: check_members(study, fit_report),
            "significance": lambda: check_significance(study, covariance),
            "tree": lambda: check_tree(study),
            "pipeline_null": lambda: check_pipeline_null(study),
            "gap": lambda: check_gap(study),
            "mixture": lambda: check_mixture(study, scores),
            "dip": lambda: check_dip(study, scores),
            "prediction_strength": lambda: check_prediction_strength(study),
            "assignment_transfer": lambda: check_transfer(study, transfer),
            "leave_site_out": lambda: check_sites(study, transfer),
            "representation": lambda: check_representation(study, model, training),
        }
        return {name: run[name]() for name in checks if name in run}

    def _repeat_without(self, study, nuisance, kinds, refit, covariance):
        """The main checks on features from which nuisance variables were regressed out, clustered anew."""
        features = regress_out(study.features, nuisance, kinds)
        if refit == "frozen":
            warnings.warn("Members are kept although the features have changed: `refit` is 'frozen'.", stacklevel=3)
        labels = canonical_labels(study.recluster(features))
        clean = Study(features, labels, study.cluster, QUICK_REPETITIONS, study.seed, study.site)
        records = self._run(clean, CORE[:-1], None, None, None, None, covariance)
        records["nuisance"] = check_nuisance(clean, nuisance, kinds)
        verdict, _ = decide(records, len(labels))
        return {"verdict": verdict, "checks": records, "scores": summarize(records)}


def summarize(records):
    """The main values as numbers, by name; what was not measured is left out."""
    paths = {
        "jaccard": ("jaccard", "minimum"),
        "prediction_strength": ("prediction_strength", "mean"),
        "significance_p": ("significance", "p_empirical"),
        "mixture_p": ("mixture", "p"),
        "dip_p": ("dip", "p"),
        "pipeline_null_p": ("pipeline_null", "p_empirical"),
        "subsampling_ari": ("subsampling", "mean"),
        "assignment_transfer_ari": ("assignment_transfer", "mean"),
        "leave_site_out_ari": ("leave_site_out", "mean"),
    }
    found = {name: records.get(check, {}).get("values", {}).get(key) for name, (check, key) in paths.items()}
    return {name: value for name, value in found.items() if value is not None}


def _read(features, labels):
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            "`features` must be (num_patients, num_features) and `labels` (num_patients,); got "
            f"{features.shape} and {labels.shape}."
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"`labels` must hold subtypes, integers from 0; got {labels.dtype} from {labels.min()}.")
    if not np.isfinite(features).all():
        raise ValueError("`features` must be finite; got NaN or infinity.")
    counts = np.bincount(labels)
    if (counts == 0).any():
        raise ValueError(f"`labels` must use each number up to the largest; {int(np.argmin(counts))} has nobody.")
    return features, labels.astype(np.int64)


def read_options(checks=None, quick=False, repetitions=None, covariance=None):
    """Names of the checks and the repetitions of each; refuses options that `compute` and `measure` do not know."""
    checks = CHECKS if checks is None else tuple(checks)
    unknown = [name for name in checks if name not in CHECKS]
    if unknown:
        raise ValueError(f"`checks` must be among {', '.join(CHECKS)}; got {unknown[0]!r}.")
    counts = dict(QUICK_REPETITIONS if quick else REPETITIONS)
    unknown = sorted(set(repetitions or {}) - set(counts))
    if unknown:
        raise ValueError(f"`repetitions` must have keys of {', '.join(counts)}; got {unknown[0]!r}.")
    if covariance not in (None, *COVARIANCES):
        raise ValueError(f"`covariance` must be one of {', '.join(COVARIANCES)}; got {covariance!r}.")
    return checks, counts | (repetitions or {})


def _read_column(values, num_rows):
    if values is None:
        return None
    values = np.asarray(values)
    if values.shape != (num_rows,):
        raise ValueError(f"a column of patients must have {num_rows} values; got {values.shape}.")
    return values


def _read_table(name, table, num_rows):
    table = {key: np.asarray(values) for key, values in (table or {}).items()}
    for key, values in table.items():
        if values.shape != (num_rows,):
            raise ValueError(
                f"`{name}` must have {num_rows} values for {key!r}, one for each patient; got {values.shape}."
            )
    return table


def _build_clusterer(model, clusterer, refit, features, training):
    if callable(clusterer):
        return clusterer, "given function"
    if clusterer is not None or model is None:
        name = clusterer or "ward"
        if name not in CLUSTERERS:
            raise ValueError(f"`clusterer` must be one of {', '.join(CLUSTERERS)}, or a function; got {name!r}.")
        return CLUSTERERS[name], name
    if refit is None:
        small = features.size * model.config.num_members <= MAX_FULL_REFIT
        refit = "linear" if model.config.encoder == "linear" or not small else "full"
    return model.build_clusterer(refit, **((training or {}) if refit == "full" else {})), refit
