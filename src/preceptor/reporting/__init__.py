"""Reports: a run folder in, one self-contained HTML page out; never torch."""
