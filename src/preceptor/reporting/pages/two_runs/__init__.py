"""The page of two runs of one kind."""
