"""Objectives, one idea a file: ``(outputs, batch, *, ...) -> Terms``.

No parameters, no key, no config; heads live in the model. Traits: ``reads``, the outputs that the
model must make (name -> classes, 0 where the model knows); ``needs``, what the rows must hold.
Dropping a file here registers it.
"""
