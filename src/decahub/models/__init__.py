"""One room for each method. Nothing is imported here: a room is loaded when one of its names is asked for."""
