"""NewMethod: one file for each part; import the classes from `decahub`."""
