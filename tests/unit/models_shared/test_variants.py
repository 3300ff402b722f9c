"""Named variants of every room: what is refused, and with which hint."""

import pytest

from decahub import EmoConfig, RawGnnConfig, ReliantConfig, TinyMimConfig


@pytest.mark.parametrize(
    ("config_class", "name", "overrides", "message"),
    [
        (EmoConfig, "3m", {}, r"`name` must be one of 1m, 2m, 5m, 6m; got '3m'"),
        (TinyMimConfig, "smalll", {}, r"got 'smalll'\. Did you mean 'small'\?"),
        (ReliantConfig, "gin-teacher", {}, r"got 'gin-teacher'\. Did you mean 'gcn-teacher'\?"),
        (EmoConfig, "1m", {"window_size": [7] * 4}, r"`window_size` must be a field of EmoConfig.*`window_sizes`"),
        (TinyMimConfig, "tiny", {"teacher_layr": 3}, r"`teacher_layr` .* Did you mean `teacher_layer`\?"),
        (RawGnnConfig, "paper", {"walk_lenght": 2}, r"`walk_lenght` .* Did you mean `walk_length`\?"),
        (RawGnnConfig, "paper", {"out_indices": [1]}, r"`out_indices` must be a field of RawGnnConfig"),
        (ReliantConfig, "akd-sgc", {"fairnes_weight": 3.0}, r"`fairnes_weight` .* Did you mean `fairness_weight`\?"),
    ],
)
def test_refuses_unknown_variants_and_fields(config_class, name, overrides, message):
    with pytest.raises(ValueError, match=message):
        config_class.from_variant(name, **overrides)


def test_override_wins_over_the_variant_and_leaves_the_table_alone():
    config = EmoConfig.from_variant("1m", depths=[1, 1, 1, 1], id2label={0: "cat"}, out_indices=[2])
    config.head_dims[0] = 99

    assert (config.depths, config.num_labels, config.out_indices) == ([1, 1, 1, 1], 1, [2])
    assert EmoConfig.from_variant("1m").head_dims == [16, 16, 20, 21]
