"""The metric "nuscenes_detection" against nuscenes-devkit, in files of the kind "nuscenes_metric"."""

import pytest
import torch

from decahub.metrics import load_metric
from tests.parity.golden import golden_params


ATOL = 1e-6  # promised; the same sums in float64 agree to 1e-15
KEYS = ("gt", "pred", "ap_class_dist", "tp_errors_class", "mean_ap", "mean_tp", "nds")
ERRORS = {
    "trans_err": "translation_error",
    "scale_err": "scale_error",
    "orient_err": "orientation_error",
    "vel_err": "velocity_error",
    "attr_err": "attribute_error",
}
BOX = ("x", "y", "z", "l", "w", "h", "yaw", "vx", "vy")


def build_frames(golden, key):
    """Boxes of each frame, in the layout of the metric."""
    columns = golden.metadata["columns"].split(",")
    rows = golden[key]
    samples = torch.cat([golden[name][:, columns.index("sample")] for name in ("gt", "pred")])
    num_frames = int(samples.max()) + 1  # either may have no box at all
    frames = []
    for frame in range(num_frames):
        chosen = rows[rows[:, columns.index("sample")] == frame]
        values = {name: chosen[:, columns.index(name)] for name in columns}
        frames.append(
            {
                "boxes": torch.stack([values[name] for name in BOX], dim=1),
                "labels": values["class"].long(),
                "attributes": (values["attr_index"].long() - 1).tolist(),
            }
        )
        if key == "pred":
            frames[-1]["scores"] = values["score"]
    return frames


def compute(golden):
    thresholds = [float(meters) for meters in golden.metadata["dist_ths"].split(",")]
    return load_metric("nuscenes_detection").compute(
        predictions=build_frames(golden, "pred"),
        references=build_frames(golden, "gt"),
        label_names=golden.metadata["classes"].split(","),
        distance_thresholds=thresholds,
    )


@pytest.mark.parametrize("golden", golden_params("cmt", "nuscenes_metric"))
def test_no_key_goes_unseen(golden):
    assert golden.unknown_keys(KEYS) == []
    assert golden.metadata["attributes"].split("|")[0] == ""  # id 0 is no attribute


@pytest.mark.parametrize("golden", golden_params("cmt", "nuscenes_metric"))
def test_scores_are_those_of_the_devkit(golden):
    scores = compute(golden)

    assert scores["nds"] == pytest.approx(golden["nds"].item(), abs=ATOL)
    assert scores["mean_ap"] == pytest.approx(golden["mean_ap"].item(), abs=ATOL)
    for name, expected in zip(golden.metadata["tp_order"].split(","), golden["mean_tp"].tolist(), strict=True):
        assert scores[ERRORS[name]] == pytest.approx(expected, abs=ATOL), name


@pytest.mark.parametrize("golden", golden_params("cmt", "nuscenes_metric"))
def test_each_class_has_the_scores_of_the_devkit(golden):
    by_class = compute(golden)["by_class"]

    names = golden.metadata["classes"].split(",")
    thresholds = golden.metadata["dist_ths"].split(",")
    order = golden.metadata["tp_order"].split(",")
    for name, precisions, errors in zip(names, golden["ap_class_dist"], golden["tp_errors_class"], strict=True):
        if name not in by_class:  # no annotated box: the devkit has the worst scores there, which only its means need
            assert precisions.max() == 0
            assert errors.nan_to_num(nan=1.0).eq(1).all()
            continue
        for meters, expected in zip(thresholds, precisions.tolist(), strict=True):
            assert by_class[name][f"ap_{float(meters):g}"] == pytest.approx(expected, abs=ATOL), (name, meters)
        for error, expected in zip(order, errors.tolist(), strict=True):
            if expected != expected:
                assert ERRORS[error] not in by_class[name]
            else:
                assert by_class[name][ERRORS[error]] == pytest.approx(expected, abs=ATOL), (name, error)
