"""Random walks of RAW-GNN: the graph that they run on, their draws, steps and tables, and the paths cut from them."""
