"""Of `evaluate`: who sits which benchmark, what each pair left, and the gate."""
