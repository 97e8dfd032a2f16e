"""Comparing arms on equal terms: the grid, its cells, their statistics, and the page about them."""
