"""The record of one dataset in the catalog. Plain data: importing this module imports no other library."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetEntry:
    """What decahub knows about one dataset.

    Args:
        name: Key in `DATASETS`, and what `load_dataset` is called with.
        title: Name for reports and model cards.
        family: Kind of data, which decides the columns: the module `decahub.data.<family>` with `-` read as `_`.
        license: Identifier, as the Hub spells it, for weights that were trained on this data.
        license_note: One sentence on what the data's terms allow.
        homepage: Where the data comes from.
        citation: What to cite.
        folder: Folder below the data directory that holds one file per split.
        splits: Split name to the stem of its file.
        columns: Column in the files to column in decahub; columns that do not appear keep their name.
        label_names: Class names in the order of their ids.
        void_label: Raw label of pixels to ignore, stored as `IGNORE_INDEX` after loading.
        hub_id: Repository on the Hub to use where the folder is absent; `None` where no equivalent is known.
        hub_columns: Like `columns`, for the Hub repository.
        hub_note: How the Hub repository differs from the files that decahub's scores were measured on.
        builder: `module:function` that builds the dataset, such as from an installed package; then no file is
            looked for. A parameter `data_dir` is the directory of the datasets.
        file_format: Ending of the files: "parquet", or "npz" where the family reads it.
        split_names: Graphs: names of the ways in which the nodes are split, one for each row of the masks.
        sensitive: Graphs: the attribute that `sensitive` holds; empty where there is none.
        sensitive_names: Graphs: what the values 0, 1, ... of `sensitive` mean.
        novel_labels: Few-shot data: classes that training on base classes leaves out; the others are base.
        degree_features: Graphs: whether the files have no features, so that a node is described by its degree.
    """

    name: str
    title: str
    family: str
    license: str
    license_note: str
    homepage: str
    citation: str
    folder: str
    splits: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    void_label: int | None = None
    hub_id: str | None = None
    hub_columns: Mapping[str, str] = field(default_factory=dict)
    hub_note: str = ""
    builder: str | None = None
    file_format: str = "parquet"
    split_names: tuple[str, ...] = ()
    sensitive: str = ""
    sensitive_names: tuple[str, ...] = ()
    degree_features: bool = False
    novel_labels: tuple[str, ...] = ()


__all__ = ["DatasetEntry"]
