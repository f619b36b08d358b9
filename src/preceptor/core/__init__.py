"""Types, plugs, run folders, errors: what every other room stands on. Reaches no torch."""
