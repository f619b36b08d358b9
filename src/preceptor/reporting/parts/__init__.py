"""What every page and table is made of: the page itself, words, tables, folders."""
