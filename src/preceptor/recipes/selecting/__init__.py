"""Of `select`: what it checks, measures, races and tries, and what its report quotes."""
