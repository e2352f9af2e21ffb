"""Keeps of some modules what their entry points reach.

Definitions that nobody reaches go, and with them imports, methods and whole
modules that only they needed.
"""

import ast

from upstream.source import DEFINITIONS, Source


def shake(modules, entries, roots, everything):
    """Drop what is not reached, until nothing more is dropped.

    Arguments
    ---------
    modules : dict of str to str
        Sources by dotted name; packages too.
    entries : sequence of str
        Modules whose top level runs: all of them stays.
    roots : sequence of str
        Dotted names of definitions that a YAML builds.
    everything : sequence of str
        Sources of the whole project: a method that is called there, and not
        in what stays, is not needed. One that nobody calls overrides
        another's.

    Returns
    -------
    dict of str to str
        The modules that stay, with what stays of them.
    """
    called = set().union(*map(_attributes, everything))
    while True:
        reached = _reached(modules, entries, roots)
        packages = {name.rsplit(".", 1)[0] for name in reached if "." in name}
        packages |= {name.rsplit(".", 1)[0] for name in packages if "." in name}
        slim = {}
        for name, text in modules.items():
            if name in reached or name in packages:
                names = None if name in entries else reached.get(name, set())
                slim[name] = _keep(text, names)
        slim = _without_methods(slim, called)
        slim = {name: without_unused_imports(t) for name, t in slim.items()}
        if slim == modules:
            return slim
        modules = slim


def imports_of(tree):
    """(name bound, module, name in it or None) of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                yield bound, alias.name, None


def _reached(modules, entries, roots):
    """{module: names of its top level that are reached}."""
    trees = {name: ast.parse(text) for name, text in modules.items()}
    reached = {}
    todo = []

    def reach(module, name):
        if module in trees and name not in reached.setdefault(module, set()):
            reached[module].add(name)
            todo.append((module, name))

    for root in roots:
        module, _, name = root.rpartition(".")
        if module in trees:
            reach(module, name)
    for entry in entries:
        reached[entry] = set()
        todo.append((entry, None))
        for name in top_level(trees[entry]):
            reach(entry, name)
    while todo:
        module, name = todo.pop()
        tree = trees[module]
        # What runs on import is reached with the module.
        nodes = top_level(tree).get(name, []) + _side_effects(tree)
        bound = {}
        for local, source, attribute in imports_of(tree):
            bound.setdefault(local, []).append((source, attribute))
        own = top_level(tree)
        for node in nodes:
            for part in ast.walk(node):
                if not isinstance(part, ast.Name):
                    continue
                if part.id in own:
                    reach(module, part.id)
                for source, attribute in bound.get(part.id, ()):
                    whole = f"{source}.{attribute}"
                    if whole in trees:
                        for used in _attributes_of(node, part.id):
                            reach(whole, used)
                        reached.setdefault(whole, set())
                    elif attribute is not None:
                        reach(source, attribute)
    return reached


def top_level(tree):
    """{name: statements of the top level that define it}."""
    found = {}
    for node in tree.body:
        for name in _defined(node):
            found.setdefault(name, []).append(node)
    return found


def _defined(node):
    """Names that a statement of the top level defines."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _side_effects(tree):
    """Statements of the top level that run and define nothing."""
    return [
        node
        for node in tree.body
        if not _defined(node)
        and not isinstance(node, ast.Import | ast.ImportFrom)
    ]


def _attributes_of(node, name):
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.value, ast.Name)
        and part.value.id == name
    }


def _keep(text, names):
    """A module with these names of its top level; None for all."""
    if names is None:
        return text
    source = Source(text)
    for node in ast.parse(text).body:
        defined = _defined(node)
        if defined and not names.intersection(defined):
            source.remove(node)
    return source.result()


def _attributes(text, without=None):
    """Attribute names that a source reads, outside of one definition."""
    found = set()
    stack = [ast.parse(text)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Attribute):
            # A method that calls the one it overrides is not its caller.
            value = node.value
            is_super = (
                isinstance(value, ast.Call)
                and getattr(value.func, "id", "") == "super"
            )
            if not is_super:
                found.add(node.attr)
        stack.extend(c for c in ast.iter_child_nodes(node) if c is not without)
    return found


def _without_methods(modules, called):
    """Drop methods that were called in the project and no longer are."""
    still = set().union(*map(_attributes, modules.values()))
    slim = {}
    for name, text in modules.items():
        source = Source(text)
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ClassDef):
                continue
            for method in node.body:
                known = getattr(method, "name", "__")
                dunder = known.startswith("__")
                if not dunder and known in called and known not in still:
                    source.remove(method)
        slim[name] = source.result()
    return slim


def without_unused_imports(text):
    """Drop imports of the top level whose names nobody reads."""
    tree = ast.parse(text)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    source = Source(text)
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        line = source.lines[node.end_lineno - 1]
        if b"noqa" in line or b"noqa" in source.lines[node.lineno - 1]:
            continue
        kept = [
            alias
            for alias in node.names
            if (alias.asname or alias.name.split(".")[0]) in used
        ]
        if not kept:
            source.remove(node)
        elif len(kept) < len(node.names):
            names = ", ".join(ast.unparse(alias) for alias in kept)
            start, end = source.span(node)
            source.replace(
                (start, end), f"from {node.module} import {names}".encode()
            )
    return source.result()
