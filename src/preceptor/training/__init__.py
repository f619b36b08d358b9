"""Training a student from a teacher: the objective and a thin subclass of TRL's SFTTrainer."""
