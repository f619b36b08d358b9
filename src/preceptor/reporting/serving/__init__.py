"""What `preceptor serve` shows: the runs of a folder, and one at work."""
