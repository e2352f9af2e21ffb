"""Leaves named functions, parameters and keys out of Python sources.

What is left out counts as None, or as the value that it is given. A condition on it is decided, a statement or
an argument that needs it goes with it, and so does every definition that
nobody calls any more. The rest of the text stays as it was written, with its
comments.
"""

import ast
from dataclasses import dataclass, field

from upstream.source import DEFINITIONS, Source

TRUE = "true"
GONE = "gone"


class SlimmingError(Exception):
    """A name cannot be left out as asked; the message says where and why."""


@dataclass
class LeftOut:
    """What goes, by name.

    Arguments
    ---------
    names : dict of str to object
        Functions, classes, methods and constants, and what stands for them
        and for what they return; ``Class.method`` for one class alone.
    attributes : dict of str to object
        Attributes and methods of any object, and the value that they have
        instead.
    keys : dict of str to object
        Top-level keys of the YAMLs, and the value that they have instead.
    parameters : dict of str to dict of str to object
        Parameters and their values, by the name of the function or class.
    """

    names: dict = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)


def cut(text, left_out, known=None):
    """Return a source without what is left out.

    Arguments
    ---------
    text : str
        The source.
    left_out : LeftOut
        What goes.
    known : dict, optional
        From :func:`positions`: where a parameter that goes may be an argument
        without a name.

    Returns
    -------
    str

    Raises
    ------
    SlimmingError
        If something that stays needs what is left out.
    """
    # A condition that is decided uncovers others inside: until all is done.
    for turn in range(20):
        # Arguments are counted once: afterwards there are fewer.
        local = {} if turn else {**(known or {}), **positions([text])}
        cutter = _Cutter(text, left_out, local)
        cutter.block(cutter.tree.body, {}, "")
        result = cutter.source.result()
        if result == text:
            return text
        text = result
    raise SlimmingError("the cuts do not come to an end.")


class _Cutter:
    def __init__(self, text, left_out, known):
        self.source = Source(text)
        self.tree = ast.parse(text)
        self.out = left_out
        self.positions = known
        self.imported = {
            alias.asname or alias.name.split(".")[0]
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }

    # Statements -----------------------------------------------------------

    def block(self, statements, gone, owner):
        """Cut a block; return whether any statement stays."""
        for position, statement in enumerate(statements[:-1]):
            if isinstance(statement, ast.Raise):
                raise SlimmingError(
                    f"`{ast.unparse(statement)[:60]}` is always reached."
                )
            if isinstance(statement, ast.Return):
                for unreached in statements[position + 1 :]:
                    self.drop(unreached)
                statements = statements[: position + 1]
                break
        kept = [self.statement(s, gone, owner) for s in statements]
        documented = ast.get_docstring(ast.Module(statements, [])) is not None
        return any(kept[1:] if documented and len(kept) > 1 else kept)

    def statement(self, node, gone, owner):
        """Cut a statement; return whether it stays."""
        if isinstance(node, DEFINITIONS):
            return self.definition(node, gone, owner)
        if isinstance(node, ast.If):
            return self.condition(node, gone, owner)
        if isinstance(node, ast.For | ast.While):
            header = node.iter if isinstance(node, ast.For) else node.test
            if self.value(header, gone) == GONE:
                return self.drop(node)
            return self.keep_body(node, gone, owner)
        if isinstance(node, ast.With):
            items = [
                i
                for i in node.items
                if self.value(i.context_expr, gone) == GONE
            ]
            if len(items) == len(node.items):
                return self.unwrap(node, node.body)
            if items:
                raise SlimmingError(f"line {node.lineno}: a part of a with.")
            return self.keep_body(node, gone, owner)
        if isinstance(node, ast.Try):
            return self.keep_body(node, gone, owner)
        if isinstance(node, ast.Assign):
            return self.assignment(node, gone)
        if isinstance(node, ast.AnnAssign):
            # A field of a dataclass
            fields = self.out.parameters.get(owner, ())
            if getattr(node.target, "id", None) in fields:
                return self.drop(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            return True
        if isinstance(node, ast.Return) and node.value is not None:
            if self.value(node.value, gone) == GONE:
                return self.drop(node)
            return True
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr) and self.value(child, gone) == GONE:
                return self.drop(node)
        return True

    def definition(self, node, gone, owner):
        full = f"{owner}.{node.name}".lstrip(".")
        if full in self.out.names or node.name in self.out.names:
            return self.drop(node)
        if owner and node.name in self.out.attributes:
            return self.drop(node)
        for name in self.out.parameters.get(node.name, ()):
            self.description(node, name)
        if isinstance(node, ast.ClassDef):
            self.block(node.body, gone, node.name)
            return True
        gone = dict(gone)
        known = node.name if node.name != "__init__" else owner
        for name, value in self.out.parameters.get(known, {}).items():
            gone[name] = value
            self.parameter(node, name)
        if not self.block(node.body, gone, full):
            return self.drop(node)
        return True

    def parameter(self, function, name):
        """Take a parameter out of a signature, if it is there."""
        arguments = function.args
        positional = arguments.posonlyargs + arguments.args
        defaults = [None] * (len(positional) - len(arguments.defaults))
        pairs = list(
            zip(positional, defaults + arguments.defaults, strict=True)
        )
        pairs += list(
            zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        )
        for argument, default in pairs:
            if argument.arg == name:
                last = default or argument
                start, _ = self.source.span(argument)
                self.with_comma(start, self.source.span(last)[1])

    def description(self, node, name):
        """Take a parameter out of the docstring."""
        if ast.get_docstring(node) is None:
            return
        first = node.body[0]
        indent = b" " * first.col_offset
        numbers = range(first.lineno, first.end_lineno)
        for number in numbers:
            if self.source.lines[number].startswith(
                indent + name.encode() + b" : "
            ):
                end = number + 1
                while self.source.lines[end].startswith(indent + b"    "):
                    end += 1
                self.source.edits.append(
                    (self.source.starts[number], self.source.starts[end], b"")
                )

    def with_comma(self, start, end):
        """Remove an element and the comma after it, or else before it."""
        text = self.source.text
        after = end
        while text[after : after + 1].isspace():
            after += 1
        if text[after : after + 1] == b",":
            end = after + 1
        else:
            before = start
            while text[before - 1 : before].isspace():
                before -= 1
            if text[before - 1 : before] == b",":
                start = before - 1
        self.source.replace((start, end), b"")

    def condition(self, node, gone, owner):
        decided = self.value(node.test, gone)
        if decided == GONE:
            if not node.orelse:
                return self.drop(node)
            if self.is_elif(node.orelse):
                # `elif` becomes `if`, the branch before it goes.
                start, _ = self.source.span(node)
                inner, _ = self.source.span(node.orelse[0])
                self.source.replace((start, inner + 2), b"if")
                return True
            return self.unwrap(node, node.orelse)
        if decided == TRUE:
            return self.unwrap(node, node.body)
        before = len(self.source.edits)
        stays = self.block(node.body, dict(gone), owner)
        if not stays and node.orelse:
            raise SlimmingError(
                f"line {node.lineno}: the body of an if with an else is empty."
            )
        if not stays:
            del self.source.edits[before:]
            return self.drop(node)
        if node.orelse and not self.block(node.orelse, dict(gone), owner):
            _, end = self.source.lines_of(node.body)
            _, last = self.source.whole_lines(node)
            self.source.replace((end, last), b"")
        return True

    def is_elif(self, orelse):
        if len(orelse) != 1 or not isinstance(orelse[0], ast.If):
            return False
        start, _ = self.source.span(orelse[0])
        return self.source.text[start : start + 4] == b"elif"

    def unwrap(self, node, body):
        """Put a body in the place of the statement that it belongs to."""
        if self.is_elif([node]):
            raise SlimmingError(f"line {node.lineno}: an elif is decided.")
        start, end = self.source.lines_of(body)
        shift = body[0].col_offset - node.col_offset
        text = b"".join(
            line[shift:] if line[:shift].isspace() else line
            for line in self.source.text[start:end].splitlines(keepends=True)
        )
        self.source.replace(self.source.whole_lines(node), text)
        return True

    def keep_body(self, node, gone, owner):
        before = len(self.source.edits)
        stays = self.block(node.body, gone, owner)
        for handler in getattr(node, "handlers", ()):
            self.block(handler.body, dict(gone), owner)
        for name in ("orelse", "finalbody"):
            if getattr(node, name, None):
                self.block(getattr(node, name), dict(gone), owner)
        if not stays:
            del self.source.edits[before:]
            return self.drop(node)
        return True

    def assignment(self, node, gone):
        names = [t.id for t in node.targets if isinstance(t, ast.Name)]
        if all(self.value(t, gone, True) == GONE for t in node.targets):
            return self.drop(node)
        if self.value(node.value, gone) == GONE:
            gone.update(dict.fromkeys(names))
            return self.drop(node)
        for name in names:
            gone.pop(name, None)
        return True

    def drop(self, node):
        self.source.remove(node)
        return False

    # Expressions ----------------------------------------------------------

    def value(self, node, gone, target=False):
        """GONE, TRUE or None for an expression; edits what stays of it."""
        if isinstance(node, ast.Name):
            if node.id in self.out.names:
                return TRUE if self.out.names[node.id] else GONE
            return GONE if node.id in gone and not target else None
        if isinstance(node, ast.Attribute):
            if node.attr in self.out.keys and self.is_hparams(node.value):
                return GONE
            if node.attr in self.out.attributes:
                return TRUE if self.out.attributes[node.attr] else GONE
            of_module = getattr(node.value, "id", None) in self.imported
            if of_module and node.attr in self.out.names:
                return TRUE if self.out.names[node.attr] else GONE
            return self.gone_only(node.value, gone)
        if isinstance(node, ast.Subscript):
            if self.is_key(node.slice) and self.is_hparams(node.value):
                return GONE
            return self.any_gone([node.value, node.slice], gone)
        if isinstance(node, ast.Call):
            return self.call(node, gone)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.value(node.operand, gone)
            return {GONE: TRUE, TRUE: GONE, None: None}[inner]
        if isinstance(node, ast.BoolOp):
            return self.boolean(node, gone)
        if isinstance(node, ast.Compare):
            return self.comparison(node, gone)
        if isinstance(node, ast.IfExp):
            decided = self.value(node.test, gone)
            if decided is not None:
                part = node.orelse if decided == GONE else node.body
                inner = self.value(part, gone)
                start, end = self.source.span(part)
                self.source.replace(
                    self.source.span(node), self.source.text[start:end]
                )
                return inner
            return self.any_gone([node.body, node.orelse], gone)
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            before = len(self.source.edits)
            gone_now = [
                e for e in node.elts if self.value(e, gone, target) == GONE
            ]
            if node.elts and len(gone_now) == len(node.elts):
                del self.source.edits[before:]
                return GONE
            for element in gone_now:
                self.with_comma(*self.source.span(element))
            if gone_now and len(node.elts) - len(gone_now) == 1:
                self.only_element(node, gone_now)
            return None
        if isinstance(node, ast.Dict):
            for key, item in zip(node.keys, node.values, strict=True):
                if self.value(item, gone) == GONE or (
                    key is not None and self.value(key, gone) == GONE
                ):
                    start = self.source.span(key or item)[0]
                    if key is None:
                        start -= 2
                    self.with_comma(start, self.source.span(item)[1])
            return None
        return self.any_gone(list(_expressions(node)), gone)

    def only_element(self, node, removed):
        """Write a sequence of one element; a tuple of it has a comma."""
        (kept,) = [e for e in node.elts if e not in removed]
        start, end = self.source.span(node)
        first, last = self.source.span(kept)
        text = self.source.text[first:last]
        if isinstance(node, ast.Tuple):
            text = b"(" + text + b",)"
        else:
            text = self.source.text[start : start + 1] + text
            text += self.source.text[end - 1 : end]
        self.source.replace((start, end), text)

    def gone_only(self, node, gone):
        return GONE if self.value(node, gone) == GONE else None

    def any_gone(self, nodes, gone):
        found = [self.value(n, gone) for n in nodes]
        return GONE if GONE in found else None

    def call(self, node, gone):
        key = node.args and self.is_key(node.args[0])
        if isinstance(node.func, ast.Attribute):
            getter = node.func.attr in ("get", "pop")
            if key and getter and self.is_hparams(node.func.value):
                return GONE
        if isinstance(node.func, ast.Name) and node.func.id in (
            "getattr",
            "hasattr",
        ):
            if self.is_hparams(node.args[0]) and self.is_key(node.args[1]):
                return GONE
        known = self.value(node.func, gone)
        if known is not None:
            return known
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        without = self.out.parameters.get(name, ())
        removed = self.removed_positions(name, without)
        for position, argument in enumerate(node.args):
            if position in removed or getattr(argument, "id", 0) in without:
                self.with_comma(*self.source.span(argument))
            elif self.value(argument, gone) == GONE:
                return GONE
        for keyword in node.keywords:
            if (
                keyword.arg in without
                or self.value(keyword.value, gone) == GONE
            ):
                self.with_comma(*self.source.span(keyword))
        return None

    def removed_positions(self, name, without):
        found = self.positions.get(name, ())
        return {found.index(p) for p in without if p in found}

    def boolean(self, node, gone):
        values = [self.value(v, gone) for v in node.values]
        decisive = GONE if isinstance(node.op, ast.And) else TRUE
        if decisive in values:
            return decisive
        decided = [
            n for n, v in zip(node.values, values, strict=True) if v is not None
        ]
        if len(decided) == len(node.values):
            return TRUE if decisive == GONE else GONE
        if decided:
            stays = [
                n for n, v in zip(node.values, values, strict=True) if v is None
            ]
            operator = b" and " if decisive == GONE else b" or "
            spans = [self.source.span(n) for n in stays]
            text = operator.join(self.source.text[a:b] for a, b in spans)
            self.source.replace(self.source.span(node), text)
        return None

    def comparison(self, node, gone):
        operator = node.ops[0]
        right = node.comparators[0]
        decided = self.decided(node, gone)
        if decided is not None:
            return TRUE if decided else GONE
        if isinstance(operator, ast.In | ast.NotIn) and self.is_key(node.left):
            if self.is_hparams(right):
                return GONE if isinstance(operator, ast.In) else TRUE
        none = isinstance(right, ast.Constant) and right.value is None
        if none and isinstance(operator, ast.Is | ast.IsNot):
            if self.value(node.left, gone) == GONE:
                return TRUE if isinstance(operator, ast.Is) else GONE
            return None
        return self.any_gone([node.left, *node.comparators], gone)

    def decided(self, node, gone):
        """What a comparison of a fixed value with a literal gives, or None."""
        name = node.left
        if isinstance(name, ast.Name) and name.id in gone:
            left = gone[name.id]
        elif (
            isinstance(name, ast.Subscript)
            and self.is_hparams(name.value)
            and self.is_key(name.slice)
        ):
            left = self.out.keys[name.slice.value]
        else:
            return None
        try:
            right = ast.literal_eval(node.comparators[0])
        except ValueError:
            return None
        compare = {
            ast.Eq: lambda: left == right,
            ast.NotEq: lambda: left != right,
            ast.In: lambda: left in right,
            ast.NotIn: lambda: left not in right,
        }.get(type(node.ops[0]))
        return None if compare is None else compare()

    def is_key(self, node):
        return isinstance(node, ast.Constant) and node.value in self.out.keys

    def is_hparams(self, node):
        return getattr(node, "id", getattr(node, "attr", None)) == "hparams"


def positions(texts):
    """Return the positional parameters of all functions of some sources.

    Arguments
    ---------
    texts : sequence of str
        The sources.

    Returns
    -------
    dict of str to list of str
        By the name of the function, or of the class that is built.
    """
    found = {}
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                found[node.name] = [a.arg for a in node.args.args]
            if isinstance(node, ast.ClassDef):
                # A dataclass takes its fields.
                found[node.name] = [
                    inner.target.id
                    for inner in node.body
                    if isinstance(inner, ast.AnnAssign)
                ]
                for inner in node.body:
                    if getattr(inner, "name", None) == "__init__":
                        names = [a.arg for a in inner.args.args]
                        found[node.name] = names[1:]
    return found


def _expressions(node):
    """Expressions right inside a node, also behind its comprehensions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.comprehension | ast.keyword):
            yield from _expressions(child)
