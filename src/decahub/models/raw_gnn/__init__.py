"""RAW-GNN: classifies nodes by short random walks that end in them."""
