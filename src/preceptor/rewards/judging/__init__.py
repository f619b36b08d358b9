"""What judges share: prompt files, verdicts, and games against a baseline."""
