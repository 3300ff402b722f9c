"""A table of people to features: deviations from controls of the same age, sex and site, for selected features."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import cached_file

from ..shared.checks import refuse_unknown, refuse_unknown_options
from .cohort_table import (
    MANY,
    check_ids,
    expand_names,
    get_column,
    read_columns,
    stack_features,
    to_numbers,
    to_texts,
)
from .covariates import LEAST_SPREAD, CovariateModel, encode_sex
from .selection import SELECTIONS, select_features


logger = logging.getLogger(__name__)
STATE_FILE = "preprocessor_state.safetensors"
HUB_OPTIONS = ("cache_dir", "token", "revision", "local_files_only")
UNSEEN_SITE = ("error", "pooled", "nan")
IMPUTATIONS = (None, "control_mean")
HARMONIZATIONS = ("regress", "combat", "none")
REFERENCES = ("controls", "external")
AGE, SEX, SITE, GROUP, ID = "age_column", "sex_column", "site_column", "group_column", "id_column"


class MpdSubtypingFeatureExtractor(FeatureExtractionMixin):
    """Normalizes features of patients against controls, and keeps those that differ.

    Everything is learned from controls by `fit`: covariates and the spread of each feature. Which features are kept
    is decided by patients against controls. A saved extractor holds statistics, no person.

    Args:
        feature_names (`list[str]`, *optional*): columns of features; patterns such as `"thickness_*"` are expanded by
            `fit`. Required for tables, not for arrays.
        group_column (`str`): column that says who is a control.
        control_label (`str`): its value for controls; everybody else is a patient.
        id_column (`str`, *optional*): column of ids, which must differ.
        age_column (`str`, *optional*): column of ages; `None` if age is no covariate.
        sex_column (`str`, *optional*): column of sexes: F or M, 0 or 1, 1 or 2.
        site_column (`str`, *optional*): column of sites or scanners.
        further_covariates (`list[str]`): further numeric columns to regress out.
        age_degree (`int`, defaults to 1): 2 adds the square of age.
        harmonize (`str`, defaults to `"regress"`): `"regress"` takes covariates and sites out; `"combat"` takes out
            covariates, then shift and scale of each site, shrunken over features; `"none"` only standardizes.
        selection (`str`, defaults to `"ttest_fdr"`): which features are kept: `"ttest_fdr"`, `"welch_fdr"`,
            `"ttest_p"`, `"top_k"`, `"mean_or_spread"` (mean or spread differs), `"none"`.
        false_discovery_rate (`float`, defaults to 0.05): of the selections that control it.
        p_threshold (`float`, defaults to 0.001): of `"ttest_p"`.
        top_k (`int`, defaults to 50): of `"top_k"`.
        min_features (`int`, defaults to 10): this many are kept at least, with a warning.
        unseen_site (`str`, defaults to `"error"`): what happens to a site without controls: `"error"`, `"pooled"` (the
            mean site), `"nan"`.
        impute (`str`, *optional*): `"control_mean"` sets missing values to the mean of controls; by default they are
            refused.
        max_missing_share (`float`, defaults to 0.2): a person with a larger share of missing values is refused.
        reference (`str`, defaults to `"controls"`): `"external"` takes features as deviations that were computed
            elsewhere; needs no controls, covariates or selection.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    model_input_names = ["features"]

    def __init__(
        self,
        feature_names: list[str] | None = None,
        group_column: str = "group",
        control_label: str = "control",
        id_column: str | None = None,
        age_column: str | None = "age",
        sex_column: str | None = "sex",
        site_column: str | None = "site",
        further_covariates: Sequence[str] = (),
        age_degree: int = 1,
        harmonize: str = "regress",
        selection: str = "ttest_fdr",
        false_discovery_rate: float = 0.05,
        p_threshold: float = 0.001,
        top_k: int = 50,
        min_features: int = 10,
        unseen_site: str = "error",
        impute: str | None = None,
        max_missing_share: float = 0.2,
        reference: str = "controls",
        fitted: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        refuse_unknown_options(self, kwargs)
        super().__init__(**kwargs)
        for name, value, allowed in (
            ("harmonize", harmonize, HARMONIZATIONS),
            ("selection", selection, (*SELECTIONS, "none")),
            ("unseen_site", unseen_site, UNSEEN_SITE),
            ("impute", impute, IMPUTATIONS),
            ("reference", reference, REFERENCES),
            ("age_degree", age_degree, (1, 2)),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(map(str, allowed))}; got {value!r}.")
        for name, number in (("false_discovery_rate", false_discovery_rate), ("p_threshold", p_threshold)):
            if not 0 < number < 1:
                raise ValueError(f"`{name}` must lie in (0, 1); got {number!r}.")
        for name, number in (("top_k", top_k), ("min_features", min_features)):
            if number < 1:
                raise ValueError(f"`{name}` must be at least 1; got {number!r}.")
        if not 0 <= max_missing_share < 1:
            raise ValueError(f"`max_missing_share` must lie in [0, 1); got {max_missing_share!r}.")
        if harmonize == "combat" and site_column is None:
            raise ValueError("`site_column` must name the column of sites for `harmonize='combat'`; got None.")
        if reference == "external" and (selection != "none" or harmonize != "none"):
            raise ValueError(
                "`selection` and `harmonize` must be 'none' for an external reference, which has no controls; got "
                f"{selection!r} and {harmonize!r}."
            )
        self.feature_names = None if feature_names is None else list(feature_names)
        self.group_column, self.control_label, self.id_column = group_column, control_label, id_column
        self.age_column, self.sex_column, self.site_column = age_column, sex_column, site_column
        self.further_covariates = list(further_covariates)
        self.age_degree, self.harmonize, self.selection = age_degree, harmonize, selection
        self.false_discovery_rate, self.p_threshold, self.top_k = false_discovery_rate, p_threshold, top_k
        self.min_features, self.unseen_site, self.impute = min_features, unseen_site, impute
        self.max_missing_share, self.reference = max_missing_share, reference
        self.fitted = fitted  # names and counts of a fit; its arrays are in a file of their own
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has been called, or a fitted extractor loaded."""
        return bool(self._arrays)

    @property
    def selected_names(self) -> list[str]:
        """Names of the features that are kept."""
        self._check_fitted()
        return [name for name, kept in zip(self.fitted["features"], self._arrays["selected"], strict=True) if kept]

    @property
    def selection_counts(self) -> dict[str, int]:
        """How many features pass each kind of selection, before `min_features`."""
        self._check_fitted()
        return dict(self.fitted["selection_counts"])

    # Fitting

    def fit(
        self, table: Any, group: Any = None, covariates: Mapping[str, Any] | None = None
    ) -> "MpdSubtypingFeatureExtractor":
        """Learn covariates and spreads from the controls of a table, and select features.

        Args:
            table: a pandas table, a dataset, a mapping of columns, a list of rows, or an array `(people, features)`.
            group (array of shape `(people,)`, *optional*): groups, for an array.
            covariates (`Mapping`, *optional*): age, sex, site and further covariates by their column names, for an
                array.

        Returns:
            The extractor itself.

        Raises:
            ValueError: If there are no controls, values are missing or not finite, a person occurs twice, or a column
                is missing.
        """
        columns, names = self._read(table, group, covariates, None)
        features = stack_features(columns, names)
        self._check_missing(features)
        is_control = self._read_controls(columns)
        if self.reference == "external":
            arrays = {"selected": np.ones(len(names), dtype=bool)}
            self.fitted = {"features": names, "selection_counts": {}, "num_controls": 0, "num_patients": len(features)}
            self._arrays = arrays
            return self
        model, design = self._fit_covariates(columns, features, is_control)
        deviations = model.standardize(design, features, self._read_sites(columns))
        varies = model.residual_deviations >= LEAST_SPREAD
        if not varies.all():
            dropped = [name for name, ok in zip(names, varies, strict=True) if not ok]
            logger.warning("Dropped %d features that are constant in controls: %s.", len(dropped), ", ".join(dropped))
        if not varies.any():
            raise ValueError("`table` must have features that vary among controls; all are constant.")
        selected, counts = self._select(np.where(np.isfinite(deviations), deviations, 0.0), is_control, varies)
        self._arrays = {
            "selected": selected,
            "means": model.means,
            "deviations": model.deviations,
            "site_sizes": model.site_sizes,
            "coefficients": model.coefficients,
            "residual_deviations": np.where(varies, model.residual_deviations, 1.0),
        }
        if len(model.site_shifts):
            self._arrays |= {"site_shifts": model.site_shifts, "site_scales": model.site_scales}
        self.fitted = {
            "features": names,
            "terms": model.terms,
            "has_sex": model.has_sex,
            "sites": model.sites,
            "selection_counts": counts,
            "num_controls": int(is_control.sum()),
            "num_patients": int((~is_control).sum()),
        }
        return self

    def _fit_covariates(self, columns: dict, features: np.ndarray, is_control: np.ndarray) -> tuple:
        if not is_control.any():
            raise ValueError(
                f"`table` must have controls, {self.control_label!r} in {self.group_column!r}, to compare with; got "
                "none. With deviations from a reference elsewhere, set `reference='external'`."
            )
        terms = self._list_terms()
        numeric = self._read_numeric(columns, terms)
        sex, site = self._read_sex(columns), self._read_sites(columns)
        means = numeric[is_control].mean(0)
        deviations = numeric[is_control].std(0, ddof=1) if is_control.sum() > 1 else np.zeros(len(terms))
        if self.age_column is not None and f"{self.age_column}^2" in terms:
            means[1], deviations[1] = 0.0, 1.0  # the square is taken of the standardized age
            numeric[:, 1] = np.square((numeric[:, 0] - means[0]) / max(deviations[0], LEAST_SPREAD))
        for name, spread in zip(terms, deviations, strict=True):
            if not spread > LEAST_SPREAD:
                raise ValueError(f"covariate {name!r} must vary among controls; it does not. Leave it out.")
        sites = [] if site is None else sorted({name for name, own in zip(site, is_control, strict=True) if own})
        sizes = [sum(own and name == each for name, own in zip(site, is_control, strict=True)) for each in sites]
        model = CovariateModel(
            terms=terms,
            means=means,
            deviations=deviations,
            has_sex=sex is not None and len(np.unique(sex[is_control])) > 1,
            sites=sites,
            site_sizes=np.array(sizes, dtype=np.float64),
        )
        design = self._resolve_sites(model, model.build_design(numeric, sex, site), site)
        model.fit(design[is_control], features[is_control])
        if self.harmonize == "combat":
            own_sites = [name for name, own in zip(site or (), is_control, strict=True) if own]
            model.fit_combat(design[is_control], features[is_control], own_sites)
        return model, design

    def _select(self, features: np.ndarray, is_control: np.ndarray, varies: np.ndarray) -> tuple[np.ndarray, dict]:
        patients, controls = features[~is_control][:, varies], features[is_control][:, varies]
        options = {
            "false_discovery_rate": self.false_discovery_rate,
            "p_threshold": self.p_threshold,
            "top_k": min(self.top_k, int(varies.sum())),
            "min_features": min(self.min_features, int(varies.sum())),
        }
        if min(len(patients), len(controls)) < 2:
            if self.selection != "none":
                raise ValueError(
                    f"`table` must have at least 2 patients and 2 controls to select features; got {len(patients)} "
                    f"and {len(controls)}."
                )
            return varies, {}
        counts = {name: select_features(patients, controls, name, **options)[1] for name in SELECTIONS}
        if self.selection == "none":
            return varies, counts
        kept, num_passed = select_features(patients, controls, self.selection, **options)
        if num_passed < options["min_features"]:
            logger.warning(
                "Only %d of %d features pass %r: the %d with the smallest p-values are kept. %d pass "
                "'mean_or_spread', which also finds features that subtypes alter in opposite directions.",
                num_passed, int(varies.sum()), self.selection, int(kept.sum()), counts["mean_or_spread"],
            )  # fmt: skip
        selected = np.zeros(len(varies), dtype=bool)
        selected[np.flatnonzero(varies)[kept]] = True
        return selected, counts

    # Use

    def __call__(
        self,
        table: Any,
        group: Any = None,
        covariates: Mapping[str, Any] | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Deviations from controls, for the selected features.

        Args:
            table: as for `fit`; groups may be absent.
            group (array of shape `(people,)`, *optional*): groups, for an array.
            covariates (`Mapping`, *optional*): covariates, for an array.
            return_tensors (`str`, *optional*): "pt" or "np".

        Returns:
            `BatchFeature` with `features` of shape `(people, selected features)` in standard deviations of controls,
            `missing_share` `(people,)`, where groups are known `is_patient` `(people,)`, and lists `site` and `id`
            where there are such columns.

        Raises:
            ValueError: If `fit` was not called, a column is missing, a value is missing or not finite, or a site has
                no controls.
        """
        self._check_fitted()
        columns, names = self._read(table, group, covariates, self.fitted["features"])
        features = stack_features(columns, names)
        selected = self._arrays["selected"]
        missing = self._check_missing(features[:, selected])
        deviations = features
        if self.reference == "controls":
            model = self._build_model()
            numeric = self._read_numeric(columns, model.terms)
            if self.age_column is not None and f"{self.age_column}^2" in model.terms:
                numeric[:, 1] = np.square((numeric[:, 0] - model.means[0]) / model.deviations[0])
            site = self._read_sites(columns)
            design = model.build_design(numeric, self._read_sex(columns) if model.has_sex else None, site)
            deviations = model.standardize(self._resolve_sites(model, design, site), features, site)
        deviations = deviations[:, selected]
        if self.impute is not None:
            deviations = np.where(np.isfinite(features[:, selected]), deviations, 0.0)
        data: dict[str, Any] = {"features": deviations.astype(np.float32), "missing_share": missing.astype(np.float32)}
        if self.group_column in columns:
            data["is_patient"] = ~self._read_controls(columns)
        batch = BatchFeature(data, tensor_type=return_tensors)
        if self.site_column is not None and self.site_column in columns:
            batch["site"] = to_texts(columns[self.site_column], self.site_column)
        if self.id_column is not None and self.id_column in columns:
            batch["id"] = to_texts(columns[self.id_column], self.id_column)
        return batch

    def _build_model(self) -> CovariateModel:
        return CovariateModel(
            terms=list(self.fitted["terms"]),
            has_sex=self.fitted["has_sex"],
            sites=list(self.fitted["sites"]),
            **{name: self._arrays[name] for name in self._arrays if name != "selected"},
        )

    def _resolve_sites(self, model: CovariateModel, design: np.ndarray, site: list[str] | None) -> np.ndarray:
        is_unknown = np.isnan(design).any(1)
        if not is_unknown.any():
            return design
        unknown = sorted({name for name, missing in zip(site, is_unknown, strict=True) if missing})
        if self.unseen_site == "error":
            raise ValueError(
                f"`site` must be one that has controls; {unknown[0]!r} has none ({len(unknown)} such sites). Set "
                "`unseen_site='pooled'` to compare with the mean site."
            )
        if self.unseen_site == "pooled":
            logger.warning("Sites without controls are compared with the mean site: %s.", ", ".join(unknown[:MANY]))
            return model.pool_sites(design)
        return design

    # Reading

    def _read(self, table: Any, group: Any, covariates: Mapping[str, Any] | None, names: list[str] | None) -> tuple:
        """Columns by name, and names of the features."""
        if isinstance(table, np.ndarray | torch.Tensor):
            return self._read_array(np.asarray(table), group, covariates, names)
        if group is not None or covariates is not None:
            raise ValueError(
                "`group` and `covariates` must be columns of a table; only for arrays they are given apart."
            )
        columns = read_columns(table)
        if self.id_column is not None and self.id_column in columns:
            check_ids(to_texts(columns[self.id_column], self.id_column))
        if names is not None:
            return columns, names
        if self.feature_names is None:
            raise ValueError("`feature_names` must name the columns of features in a table; got None.")
        return columns, expand_names(self.feature_names, list(columns))

    def _read_array(
        self, features: np.ndarray, group: Any, covariates: Mapping[str, Any] | None, names: list[str] | None
    ) -> tuple:
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f"`table` must have shape (people, features); got {features.shape}.")
        given = {name: np.asarray(values) for name, values in (covariates or {}).items()}
        known = [name for name in (self.age_column, self.sex_column, self.site_column, self.id_column) if name]
        refuse_unknown(given, [*known, *self.further_covariates], "a covariate of the extractor")
        if names is None:
            names = self.feature_names or [f"feature_{index}" for index in range(features.shape[1])]
        if len(names) != features.shape[1]:
            raise ValueError(f"`table` must have {len(names)} features, as the fit has; got {features.shape[1]}.")
        if group is not None:
            given[self.group_column] = np.asarray(group)
        for name, values in given.items():
            if len(values) != len(features):
                raise ValueError(
                    f"`{name}` must have one value for each of {len(features)} people; got {len(values)}."
                )
        return {**given, **dict(zip(names, features.T, strict=True))}, names

    def _read_controls(self, columns: dict) -> np.ndarray:
        if self.reference == "external" and self.group_column not in columns:
            return np.zeros(len(next(iter(columns.values()))), dtype=bool)
        values = to_texts(get_column(columns, self.group_column, GROUP), self.group_column)
        return np.array([value == self.control_label for value in values])

    def _list_terms(self) -> list[str]:
        if self.harmonize == "none":
            return []
        ages = [] if self.age_column is None else [self.age_column, f"{self.age_column}^2"][: self.age_degree]
        return [*ages, *self.further_covariates]

    def _read_numeric(self, columns: dict, terms: list[str]) -> np.ndarray:
        values: list[np.ndarray] = []
        for name in terms:
            if self.age_column is not None and name == f"{self.age_column}^2":
                values.append(np.zeros_like(values[0]))  # filled in from the standardized age
                continue
            argument = AGE if name == self.age_column else "further_covariates"
            column = to_numbers(get_column(columns, name, argument), name)
            if np.isnan(column).any():
                row = int(np.flatnonzero(np.isnan(column))[0])
                raise ValueError(f"covariate {name!r} must be known for everybody; it is missing in row {row}.")
            values.append(column)
        num_people = len(next(iter(columns.values())))
        return np.stack(values, axis=1) if values else np.zeros((num_people, 0))

    def _read_sex(self, columns: dict) -> np.ndarray | None:
        if self.sex_column is None or self.harmonize == "none":
            return None
        return encode_sex(get_column(columns, self.sex_column, SEX))

    def _read_sites(self, columns: dict) -> list[str] | None:
        if self.site_column is None or self.harmonize == "none":
            return None
        return to_texts(get_column(columns, self.site_column, SITE), self.site_column)

    def _check_missing(self, features: np.ndarray) -> np.ndarray:
        share = np.isnan(features).mean(1)
        rows = np.flatnonzero(share > (self.max_missing_share if self.impute is not None else 0))
        if len(rows):
            shown = ", ".join(map(str, rows[:MANY]))
            rule = (
                f"at most {self.max_missing_share:.0%} of their features missing"
                if self.impute
                else "no missing values"
            )
            advice = "Leave them out" if self.impute else "Set `impute='control_mean'`, or leave them out"
            raise ValueError(
                f"`table` must have {rule} for each person; {len(rows)} people have more, in rows {shown}. {advice}."
            )
        return share

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ValueError("The feature extractor must be fitted before it is used: call `fit` with a table.")

    # Files

    def to_dict(self) -> dict[str, Any]:
        """Settings and names; arrays of the fit are in a file of their own."""
        return {name: value for name, value in super().to_dict().items() if name != "_arrays"}

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write `preprocessor_config.json`, and for a fitted extractor `preprocessor_state.safetensors`."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STATE_FILE
        if self.is_fitted:
            temporary = folder / f".{STATE_FILE}.{os.getpid()}"
            save_file({name: np.ascontiguousarray(array) for name, array in self._arrays.items()}, temporary)
            os.replace(temporary, path)
        else:
            path.unlink(missing_ok=True)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load an extractor, with the arrays of its fit.

        Raises:
            FileNotFoundError: If it was fitted and the arrays are missing.
            ValueError: If they do not belong to it.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        extractor = loaded[0] if isinstance(loaded, tuple) else loaded
        if extractor.fitted is not None:
            hub = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            try:
                path = cached_file(pretrained_model_name_or_path, STATE_FILE, **hub)
            except OSError as error:
                raise FileNotFoundError(
                    f"A fitted extractor must come with {STATE_FILE}; {str(pretrained_model_name_or_path)!r} lacks it."
                ) from error
            extractor._arrays = load_file(path)
            extractor._check_arrays()
        return loaded

    def _check_arrays(self) -> None:
        num_features = len(self.fitted["features"])
        wanted: dict[str, tuple[int, ...]] = {"selected": (num_features,)}
        if self.reference == "controls":
            num_terms, num_sites = len(self.fitted["terms"]), len(self.fitted["sites"])
            num_columns = 1 + num_terms + bool(self.fitted["has_sex"]) + max(0, num_sites - 1)
            wanted |= {
                "means": (num_terms,),
                "deviations": (num_terms,),
                "site_sizes": (num_sites,),
                "coefficients": (num_columns, num_features),
                "residual_deviations": (num_features,),
            }
            if self.harmonize == "combat" and num_sites > 1:
                wanted |= dict.fromkeys(("site_shifts", "site_scales"), (num_sites, num_features))
        shapes = {name: array.shape for name, array in self._arrays.items()}
        if shapes != wanted:
            raise ValueError(
                f"{STATE_FILE} must hold arrays of shapes {wanted}; got {shapes}. Save the extractor again."
            )
        if not all(np.isfinite(array).all() for array in self._arrays.values()):
            raise ValueError(f"{STATE_FILE} must be finite; it holds NaN or infinity. Save it again.")


__all__ = ["STATE_FILE", "MpdSubtypingFeatureExtractor"]
