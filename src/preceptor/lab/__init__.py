"""The embedded miniature world: verifiable English tasks, tiny trained models, a verifier."""
