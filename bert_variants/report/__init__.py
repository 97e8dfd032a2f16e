"""What people look at: plots, the one-file HTML report, coloured corruption views."""
