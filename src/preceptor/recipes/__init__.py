"""The verbs, one a file: settings in, run folder out."""
