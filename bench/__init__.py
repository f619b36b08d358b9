"""Side-by-side measurements against peers: `python -m bench NAME --json FILE`, or `all`."""
