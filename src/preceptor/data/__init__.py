"""Sources of answers and instructions, and the one place that turns text into token ids."""
