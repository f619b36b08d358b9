"""Fused and chunked implementations, each with its naive twin beside it."""
