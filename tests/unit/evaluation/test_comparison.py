"""Claims: paired intervals against hand-computed ones, sign and margin of each direction, files that contradict."""

import json
import math
from dataclasses import replace

import pytest
from scipy import stats

from decahub.evaluation import Comparison, build_row, read_comparison, run_once, write_comparison
from decahub.evaluation.comparison import FAILS, HOLDS, UNDECIDED, combine_verdicts, compute_interval


PERCENT = "accuracy (%)"
# From seed to seed both models differ by 20, from each other by 1 to 3: only pairs show which is better.
OURS, PEER = [40.0, 61.0, 82.0, 45.0], [38.0, 60.0, 79.0, 43.0]
SEEDS = [0, 1, 2, 5]
CLAIM = Comparison("toy", PERCENT, "ours", "peer")


def build_rows(ours=OURS, peer=PEER, seeds=SEEDS, metric=PERCENT):
    return [build_row("ours", "toy", metric, ours, seeds), build_row("peer", "toy", metric, peer, seeds)]


def decide(differences, **options):
    rows = build_rows(differences, [0.0] * len(differences), list(range(len(differences))))
    return replace(CLAIM, **options).measure(rows)["verdict"]


# Rows


def test_row_has_mean_and_sample_deviation():
    row = build_row("ours", "toy", PERCENT, [1.0, 3.0, 3.0, 9.0], SEEDS, minutes=2.5, split="test")

    assert (row["value"], row["n"], row["seeds"], row["split"]) == (4.0, 4, SEEDS, "test")  # median 3, maximum 9
    assert row["spread"] == pytest.approx(math.sqrt(36 / 3))


def test_one_run_has_no_deviation_and_unknown_minutes_stay_unknown():
    row = build_row("ours", "toy", PERCENT, [7.0])

    assert (row["spread"], row["minutes"], row["seeds"]) == (None, None, [])


@pytest.mark.parametrize(
    ("seeds", "splits", "message"),
    [
        ([0, 1], None, r"`seeds` in the row of 'ours' must have one item a run \(3\); got 2"),
        ([], None, r"`seeds` in the row of 'ours' must have one item a run \(3\); got 0"),
        ([0, 0, 0], [1, 2], r"`splits` in .* must have one item a run \(3\); got 2"),
        ([0, 1, 0], None, r"must differ in seed or split; got \(seed, split\) = \(0, None\) twice"),
        ([0, 0, 1], [4, 4, 4], r"got \(seed, split\) = \(0, 4\) twice"),
    ],
)
def test_row_whose_runs_cannot_be_paired_is_refused(seeds, splits, message):
    with pytest.raises(ValueError, match=message):
        build_row("ours", "toy", PERCENT, [1.0, 2.0, 3.0], seeds, splits=splits)


# Intervals and pairs


def test_interval_is_that_of_a_paired_t_test():
    expected = stats.ttest_rel(OURS, PEER).confidence_interval(0.95)

    effect = CLAIM.measure(build_rows())

    assert effect["difference"] == 2.0
    assert effect["interval"] == pytest.approx(list(expected))
    assert (effect["num_pairs"], effect["verdict"]) == (4, HOLDS)


def test_without_pairs_the_same_runs_would_decide_nothing():
    low, high = stats.ttest_ind(OURS, PEER).confidence_interval(0.95)

    assert low < 0 < high
    assert CLAIM.measure(build_rows())["verdict"] == HOLDS


def test_runs_are_paired_by_seed_and_not_by_position():
    shuffled = [build_rows()[0], build_row("peer", "toy", PERCENT, PEER[::-1], SEEDS[::-1])]

    assert CLAIM.measure(shuffled) == CLAIM.measure(build_rows())


def test_only_seeds_and_splits_that_both_have_make_pairs():
    ours = build_row("ours", "toy", PERCENT, [5.0, 7.0, 9.0, 50.0], [0, 0, 1, 1], splits=["a", "b", "a", "b"])
    peer = build_row("peer", "toy", PERCENT, [6.0, 4.0, 4.0], [0, 1, 0], splits=["b", "a", "a"])

    assert CLAIM.compute_differences([ours, peer]) == [1.0, 1.0, 5.0]


def test_no_common_seed_is_undecided():
    rows = [build_rows()[0], build_row("peer", "toy", PERCENT, [0.0] * 3, [7, 8, 9])]

    assert CLAIM.measure(rows) == {"difference": None, "interval": None, "num_pairs": 0, "verdict": UNDECIDED}


@pytest.mark.parametrize(("num_pairs", "verdict"), [(1, UNDECIDED), (2, UNDECIDED), (3, HOLDS)])
def test_fewer_than_three_pairs_are_undecided_however_clear(num_pairs, verdict):
    assert decide([50.0] * num_pairs) == verdict


def test_interval_of_three_uses_two_degrees_of_freedom():
    low, high = compute_interval([1.0, 2.0, 6.0])

    half = 4.302653 * math.sqrt(7 / 3)  # t of the table; the deviation is sqrt(7)
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


# Directions and margins


@pytest.mark.parametrize(
    ("differences", "options", "verdict"),
    [
        ([2.0, 3.0, 4.0], {}, HOLDS),  # the interval is 3 +- 2.48
        ([-2.0, -3.0, -4.0], {}, FAILS),
        ([-1.0, 3.0, 7.0], {}, UNDECIDED),
        ([0.0, 0.0, 0.0], {}, UNDECIDED),
        ([2.0, 3.0, 4.0], {"direction": "lower"}, FAILS),
        ([-2.0, -3.0, -4.0], {"direction": "lower"}, HOLDS),
        ([2.0, 3.0, 4.0], {"margin": 0.4}, HOLDS),
        ([2.0, 3.0, 4.0], {"margin": 0.6}, UNDECIDED),
        ([2.0, 3.0, 4.0], {"margin": 5.5}, FAILS),
        ([-2.0, -3.0, -4.0], {"direction": "lower", "margin": 0.6}, UNDECIDED),
        ([-2.0, -3.0, -4.0], {"direction": "lower", "margin": 5.5}, FAILS),
        ([-2.0, -3.0, -4.0], {"margin": -5.5}, HOLDS),  # a loss of at most 5.5
        ([-2.0, -3.0, -4.0], {"margin": -3.0}, UNDECIDED),
        ([-2.0, -3.0, -4.0], {"margin": -0.4}, FAILS),
        ([2.0, 3.0, 4.0], {"direction": "equal", "margin": 5.5}, HOLDS),
        ([-2.0, -3.0, -4.0], {"direction": "equal", "margin": 5.5}, HOLDS),
        ([2.0, 3.0, 4.0], {"direction": "equal", "margin": 4.0}, UNDECIDED),
        ([2.0, 3.0, 4.0], {"direction": "equal", "margin": 0.4}, FAILS),
        ([-2.0, -3.0, -4.0], {"direction": "equal", "margin": 0.4}, FAILS),
    ],
)
def test_verdict_by_direction_and_margin(differences, options, verdict):
    assert decide(differences, **options) == verdict


def test_published_value_is_one_side_of_each_pair():
    comparison = replace(CLAIM, second=58.0, direction="equal", margin=30.0)

    assert comparison.compute_differences(build_rows()) == [-18.0, 3.0, 24.0, -13.0]


def test_nearer_compares_distances_from_a_value_that_has_no_seed():
    rows = [*build_rows([9.0, 12.0, 11.0], [20.0, 21.0, 0.0], [0, 1, 2]), build_row("human", "toy", PERCENT, [10.0])]
    nearer = Comparison("toy", PERCENT, "ours", "peer", "nearer", reference="human")

    effect = nearer.measure(rows)

    assert nearer.compute_differences(rows) == [-9.0, -9.0, -9.0]
    assert effect["verdict"] == HOLDS
    assert replace(nearer, first="peer", second="ours").measure(rows)["verdict"] == FAILS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "better"}, "`direction` must be one of higher, .*; got 'better'"),
        ({"direction": "equal"}, r"`margin` must be above 0 for the direction 'equal'; got 0\.0"),
        ({"direction": "nearer"}, "`reference` must be given .*; got None"),
        ({"reference": "human"}, "`reference` must be given .*; got 'human'"),
    ],
)
def test_comparison_without_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(CLAIM, **options)


def test_comparison_names_exactly_one_row():
    rows = [build_row("ours", "toy", PERCENT, [value], split=split) for value, split in ((1.0, "a"), (2.0, "b"))]

    with pytest.raises(ValueError, match="must name one row; got 2 with .*'model': 'ours'"):
        replace(CLAIM, second=0.0).measure(rows)
    assert replace(CLAIM, second=0.0, split="b").measure(rows)["difference"] == 2.0


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, UNDECIDED], UNDECIDED),
        ([UNDECIDED, FAILS, HOLDS], FAILS),
        ([], UNDECIDED),
    ],
)
def test_claim_of_several_comparisons(verdicts, verdict):
    assert combine_verdicts(verdicts) == verdict


# Files


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results" / "toy.json"
    verdict = write_comparison(
        path, method="emo", claim="ours is better", comparisons=[CLAIM], rows=build_rows(), notes=["small"]
    )
    assert verdict == HOLDS
    return path


def test_file_keeps_the_comparison_and_its_effect(path):
    content = read_comparison(path)

    assert content["verdict"] == HOLDS
    assert content["comparisons"] == [
        {"dataset": "toy", "metric": PERCENT, "first": "ours", "second": "peer", "direction": "higher", "margin": 0.0,
         **CLAIM.measure(build_rows())}
    ]  # fmt: skip
    assert content["notes"] == ["small"]


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (None, {"verdict": FAILS}, "`verdict` of .* must be 'holds'.*; got 'does not hold'"),
        ("comparisons", {"verdict": FAILS}, "`verdict` in comparison 0 .* must be 'holds'"),
        ("comparisons", {"difference": 3.0}, r"`difference` in comparison 0 .*got 3\.0"),
        ("comparisons", {"interval": [1.0, 3.0]}, r"`interval` in comparison 0 .*got \[1\.0"),
        ("comparisons", {"interval": None}, "`interval` in comparison 0 .*got None"),
        ("comparisons", {"num_pairs": 3}, "`num_pairs` in comparison 0 .*got 3"),
        ("comparisons", {"margin": 1.9}, "`verdict` in comparison 0 .* 'undecided'"),
        ("comparisons", {"second": "other"}, "must name one row; got 0"),
        ("rows", {"value": 61.0}, r"`value` in row 0 of .* must be 57\.0.*got 61"),
        ("rows", {"seeds": [0, 1, 2, 2]}, "row 0 of .* must differ in seed or split"),
        (None, {"rows": []}, r"`rows` of .* must be a list that is not empty; got \[\]"),
    ],
)
def test_file_that_contradicts_its_runs_is_refused(path, part, changes, message):
    content = json.loads(path.read_text())
    (content if part is None else content[part][0]).update(changes)
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match=message) as caught:
        read_comparison(path)

    assert "toy.json" in str(caught.value)


@pytest.mark.parametrize(("part", "key"), [(None, "comparisons"), ("comparisons", "interval"), ("rows", "metric")])
def test_missing_key_is_named(path, part, key):
    content = json.loads(path.read_text())
    (content if part is None else content[part][0]).pop(key)
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match=rf"toy\.json must hold .*; {key} is missing"):
        read_comparison(path)


# Runs


def test_finished_run_is_read_and_not_repeated(tmp_path):
    folder = tmp_path / "deep" / "run"
    calls = []

    def compute():
        calls.append(1)
        return {"accuracy": 3, "steps": (1, 2)}

    first, second = run_once(folder, compute), run_once(folder, compute)

    assert first == second == {"accuracy": 3, "steps": [1, 2]}
    assert len(calls) == 1
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_failed_run_leaves_no_record(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_once(tmp_path, lambda: {"accuracy": 1 / 0})

    assert run_once(tmp_path, lambda: {"accuracy": 2}) == {"accuracy": 2}
