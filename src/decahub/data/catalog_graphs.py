"""The graphs that decahub knows by name. Plain data, as `catalog.py`, which lists them.

Class names stand here only where the source's numbering is certain: for Cora and Citeseer each class has a size of its
own, by which the published sizes name it; for the others the source says what 1 means. Elsewhere a class is a number.
"""

from collections.abc import Mapping
from typing import Any

from .dataset_entry import DatasetEntry


TEN_SPLITS = tuple(str(number) for number in range(10))

_CORA_CLASSES = (
    "Theory", "Reinforcement_Learning", "Genetic_Algorithms", "Neural_Networks", "Probabilistic_Methods",
    "Case_Based", "Rule_Learning",
)  # fmt: skip
_PLANETOID: Mapping[str, Any] = {
    "license": "mit",
    "license_note": "Public research data; the repository that distributes the files is under the MIT license.",
    "homepage": "https://github.com/kimiyoung/planetoid",
    "citation": "P. Sen et al., Collective Classification in Network Data, AI Magazine 29(3), 2008; Z. Yang, W. "
    "Cohen, R. Salakhutdinov, Revisiting Semi-Supervised Learning with Graph Embeddings, ICML 2016; ten splits of "
    "H. Pei et al., Geom-GCN, ICLR 2020.",
    "split_names": (*TEN_SPLITS, "planetoid"),
}
_GEOM_GCN: Mapping[str, Any] = {
    "license": "other",
    "license_note": "Public research data; its sources state no license (the repository with the splits is MIT).",
    "homepage": "https://github.com/bingzhewei/geom-gcn",
    "citation": "H. Pei, B. Wei, K. Chang, Y. Lei, B. Yang, Geom-GCN: Geometric Graph Convolutional Networks, ICLR "
    "2020.",
    "split_names": TEN_SPLITS,
}
_HETEROPHILOUS: Mapping[str, Any] = {
    "license": "mit",
    "license_note": "Public research data; the repository that distributes the files is under the MIT license.",
    "homepage": "https://github.com/yandex-research/heterophilous-graphs",
    "citation": "O. Platonov, D. Kuznedelev, M. Diskin, A. Babenko, L. Prokhorenkova, A critical look at the "
    "evaluation of GNNs under heterophily, ICLR 2023.",
    "split_names": TEN_SPLITS,
}
_WIKIPEDIA: Mapping[str, Any] = {
    **_HETEROPHILOUS,
    "citation": "B. Rozemberczki, C. Allen, R. Sarkar, Multi-scale Attributed Node Embedding, Journal of Complex "
    "Networks 9(2), 2021; files of O. Platonov et al., A critical look at the evaluation of GNNs under heterophily, "
    "ICLR 2023.",
}
_NIFTY_CITATION = (
    "C. Agarwal, H. Lakkaraju, M. Zitnik, Towards a Unified Framework for Fair and Stable Graph Representation "
    "Learning, UAI 2021; source: "
)
_NIFTY: Mapping[str, Any] = {
    "license": "mit",
    "license_note": "Public research data about people; the repository that distributes the files is under the MIT "
    "license. Not a basis for decisions about anyone.",
    "homepage": "https://github.com/chirag126/nifty",
    "split_names": ("reliant", "nifty"),
}


def _build_entry(name: str, title: str, label_names: int | tuple[str, ...], **settings: Any) -> DatasetEntry:
    """An entry of one graph; `label_names` is a number of classes where their order is not known."""
    if isinstance(label_names, int):
        label_names = tuple(f"class {number}" for number in range(label_names))
    stem = settings.pop("stem", name)
    return DatasetEntry(
        name=name,
        title=title,
        family="node-classification",
        folder="graphs",
        splits={"graph": stem},
        file_format="npz",
        label_names=label_names,
        **settings,
    )


GRAPH_ENTRIES = (
    _build_entry(
        "cora",
        "Cora citation graph",
        _CORA_CLASSES,
        **_PLANETOID,
    ),
    _build_entry("citeseer", "Citeseer citation graph", ("AI", "ML", "IR", "DB", "Agents", "HCI"), **_PLANETOID),
    _build_entry("texas", "Texas web pages (WebKB)", 5, **_GEOM_GCN),
    _build_entry("wisconsin", "Wisconsin web pages (WebKB)", 5, **_GEOM_GCN),
    _build_entry("cornell", "Cornell web pages (WebKB)", 5, **_GEOM_GCN),
    _build_entry("actor", "Actor co-occurrence graph (film)", 5, **_GEOM_GCN),
    _build_entry("chameleon", "Chameleon pages of Wikipedia", 5, **_WIKIPEDIA),
    _build_entry("squirrel", "Squirrel pages of Wikipedia", 5, **_WIKIPEDIA),
    _build_entry("chameleon_filtered", "Chameleon pages of Wikipedia without duplicates", 5, **_WIKIPEDIA),
    _build_entry("squirrel_filtered", "Squirrel pages of Wikipedia without duplicates", 5, **_WIKIPEDIA),
    _build_entry("minesweeper", "Minesweeper grid", ("no mine", "mine"), **_HETEROPHILOUS),
    _build_entry("tolokers", "Tolokers co-working graph", ("not banned", "banned"), **_HETEROPHILOUS),
    _build_entry(
        "bail",
        "Recidivism (bail)",
        ("not recidivist", "recidivist"),
        citation=f"{_NIFTY_CITATION}K. Jordan, T. Freiburger, Journal of Crime and Justice, 2015.",
        sensitive="WHITE",
        sensitive_names=("WHITE = 0", "WHITE = 1"),
        **_NIFTY,
    ),
    _build_entry(
        "german",
        "German credit",
        ("bad customer", "good customer"),
        citation=f"{_NIFTY_CITATION}UCI Statlog German Credit.",
        sensitive="Gender",
        sensitive_names=("Gender = 0 (male)", "Gender = 1 (female)"),
        **_NIFTY,
    ),
    _build_entry(
        "credit",
        "Credit defaulters (edges rebuilt)",
        ("default", "no default next month"),
        citation=f"{_NIFTY_CITATION}I. Yeh, C. Lien, Expert Systems with Applications 36(2), 2009. The edges are "
        "rebuilt from the table and are not the published ones.",
        sensitive="Age",
        sensitive_names=("Age = 0", "Age = 1"),
        **{**_NIFTY, "split_names": ("reliant",)},
    ),
    _build_entry(
        "dblp_small_degrees",
        "DBLP co-author graph (degrees as features)",
        ("other classes", "class 3"),
        stem="dblp_small_nofeatures",
        license="other",
        license_note="The source states no license.",
        homepage="https://github.com/yushundong/RELIANT",
        citation="Y. Dong, B. Zhang, Y. Yuan, N. Zou, Q. Wang, J. Li, RELIANT: Fair Knowledge Distillation for Graph "
        "Neural Networks, SDM 2023.",
        split_names=("reliant",),
        sensitive="continent",
        sensitive_names=("other continents", "continent 2"),
        degree_features=True,
    ),
)

__all__ = ["GRAPH_ENTRIES", "TEN_SPLITS"]
