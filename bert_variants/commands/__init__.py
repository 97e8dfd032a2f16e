"""The verbs of the command line, one a module: ``Options``, and ``main`` that gives a code."""
