"""Of `study`: sources and bases, a training and an exam each, and what they say together."""
