"""Of `compare-criteria` and of two runs side by side: finished run folders read again."""
