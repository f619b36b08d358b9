"""The page of a run whose verb draws none."""
