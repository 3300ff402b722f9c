"""What several rooms use, one subject a file. Publishing copies the files that a model reaches along with its room."""
