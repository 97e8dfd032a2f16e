"""Call-strings as they stand in fields, and weighted sums of them."""

from __future__ import annotations

import ast
from typing import Any

from bert_variants import registry
from bert_variants.config.fields import ConfigError


def objective_terms(text: str) -> tuple[tuple[float, str], ...]:
    """Read ``mlm + 0.5*nsp(smoothing=0.1)`` into ``((1.0, "mlm()"), (0.5, "nsp(...)"))``.

    Empty text has no terms: a model without heads, which can be used and not be trained.

    Raises:
        ConfigError: anything but a sum of calls with optional numeric weights in front.
    """
    if not text.strip():
        return ()
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"objectives {text!r} cannot be read: {error}.") from None
    parts: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.insert(0, node.right)
        node = node.left
    parts.insert(0, node)
    terms = []
    for part in parts:
        weight = 1.0
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
            if not isinstance(part.left, ast.Constant) or not isinstance(
                part.left.value, (int, float)
            ):
                raise ConfigError(f"objectives {text!r}: a weight is a number in front: 0.5*nsp.")
            weight, part = float(part.left.value), part.right
        name, args, kwargs = parse_named("objectives", ast.unparse(part), "objective")
        if args:
            raise ConfigError(f"objectives {text!r}: name the parameters of '{name}'.")
        terms.append((weight, registry.write(name, kwargs)))
    names = [registry.parse(call)[0] for _, call in terms]
    if len(set(names)) != len(names):
        raise ConfigError(f"objectives {text!r}: the same objective stands there twice.")
    return tuple(terms)


def parse_named(path: str, call: str, family: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Name and arguments of a call-string; ``path`` is the field where it stands.

    Raises:
        ConfigError: no call-string; names the field.
    """
    try:
        return registry.parse(call)
    except registry.RegistryError as error:
        raise ConfigError(f"{path} ({family}): {error}") from None
