"""Choosing the teacher: one pass of the base over the answers, then scores and intervals."""
