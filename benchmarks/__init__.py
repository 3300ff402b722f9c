"""Speed of decahub's models as ratios to references and peers that run in the same process: `python -m benchmarks`."""
