"""The page of an asking."""
