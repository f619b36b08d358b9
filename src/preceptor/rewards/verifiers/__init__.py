"""Verifiers: programs that grade an answer, each in [0, 1]."""
