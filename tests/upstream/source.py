"""A Python source that is edited by the places of its syntax tree."""

import ast

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Source:
    """A source's text with places of its syntax tree, and edits of it."""

    def __init__(self, text):
        # Columns of a syntax tree count bytes.
        self.text = text.encode()
        self.lines = self.text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.edits = []

    def place(self, line, column):
        return self.starts[line - 1] + column

    def span(self, node):
        return (
            self.place(node.lineno, node.col_offset),
            self.place(node.end_lineno, node.end_col_offset),
        )

    def whole_lines(self, node):
        """Lines of a statement, its decorators and the comments above it."""
        first = min(
            [node.lineno]
            + [d.lineno for d in getattr(node, "decorator_list", [])]
        )
        indent = b" " * node.col_offset + b"#"
        while first > 1 and self.lines[first - 2].startswith(indent):
            first -= 1
        return self.starts[first - 1], self.starts[node.end_lineno]

    def remove(self, node):
        self.edits.append((*self.whole_lines(node), b""))

    def replace(self, span, new):
        self.edits.append((*span, new))

    def lines_of(self, statements):
        """The text of consecutive statements, with comments, and its column."""
        start, _ = self.whole_lines(statements[0])
        return start, self.starts[statements[-1].end_lineno]

    def result(self):
        """The text with all edits; an edit inside another one is dropped."""
        edits = sorted(self.edits, key=lambda edit: (edit[0], -edit[1]))
        parts, position = [], 0
        for start, end, new in edits:
            if start < position:
                continue
            parts += [self.text[position:start], new]
            position = end
        parts.append(self.text[position:])
        return b"".join(parts).decode()
