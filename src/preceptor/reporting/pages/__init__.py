"""The pages: a room each, with its script, style and template."""
