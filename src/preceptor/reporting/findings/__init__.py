"""What a run folder holds and what was found in it: kinds, verdicts, numbers and words."""
