"""Programs for those who work on preceptor."""
