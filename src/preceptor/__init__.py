"""preceptor: choose the right teacher for a language model, then learn from it."""

__version__ = "0.1.0"
