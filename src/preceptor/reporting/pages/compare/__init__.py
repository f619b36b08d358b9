"""The page of a comparison of criteria."""
