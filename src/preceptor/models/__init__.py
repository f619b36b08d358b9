"""Everything that touches a checkpoint: the only place that loads models."""
