"""Of `ask` and `export`: every sample, the sets picked from them, and their card."""
