"""Pure array functions: no parameters, no project state."""
