"""The verbs of the command line, one a module: ``Options`` and ``main``, which returns an exit code."""
