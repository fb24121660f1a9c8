"""Duplicates: which rows are alike, and which row of those alike survives."""
