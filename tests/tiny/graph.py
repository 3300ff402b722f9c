"""A small made-up graph as a file: classes that show in the features, groups, two splits."""

from pathlib import Path

import numpy as np


NUM_NODES, NUM_FEATURES, NUM_CLASSES = 60, 7, 2


def write_toy_graph(folder: Path) -> Path:
    """Writes `graph.npz` into a folder that `load_dataset(folder, family="node-classification")` reads."""
    random = np.random.default_rng(0)
    labels = random.integers(NUM_CLASSES, size=NUM_NODES)
    features = random.normal(size=(NUM_NODES, NUM_FEATURES)).astype(np.float32)
    features[:, 0] += 2 * labels
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "graph.npz",
        x=features,
        edge_index=random.integers(NUM_NODES, size=(2, 4 * NUM_NODES)),
        y=labels,
        splits=np.stack([np.arange(NUM_NODES) % 3, (np.arange(NUM_NODES) + 1) % 3]).astype(np.uint8),
        sens=(random.random(NUM_NODES) < 0.3 + 0.4 * labels).astype(np.int64),
    )
    return folder
