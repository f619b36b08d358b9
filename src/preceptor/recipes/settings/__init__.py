"""Every setting of every recipe, and how a file becomes them. Reaches no torch."""
