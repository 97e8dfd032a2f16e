"""One file per variant: each returns an Experiment, as a short diff from its parent."""
