"""One file per question: each returns a Grid of arms, with the paper's claim beside it."""
