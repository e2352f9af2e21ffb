"""Parses each YAML text once in a process of tests.

The parser that HyperPyYAML uses is written in Python and takes 0.06 s for
iml_kd.yaml. Building one Brain parses it several times, and hundreds of tests
build one.
"""

import io

from ruamel.yaml.composer import Composer
from ruamel.yaml.reader import Reader


def parse_once(patch):
    """Keep the nodes of each text that was parsed without a complaint.

    Values and objects are made anew from the nodes each time.

    Arguments
    ---------
    patch : pytest.MonkeyPatch
        What takes it back.
    """
    known = {}
    compose, stream = Composer.get_single_node, Reader.stream

    def set_stream(reader, source):
        """Read a text file whole, so that its text can be looked up."""
        if hasattr(source, "read"):
            content = source.read()
            whole = io.StringIO if isinstance(content, str) else io.BytesIO
            named = whole(content)
            named.name = getattr(source, "name", "<file>")
            source = named
            if isinstance(content, str):
                reader.whole_text = named.name, content
        elif isinstance(source, str):
            reader.whole_text = None, source
        stream.fset(reader, source)

    def get_single_node(composer):
        """Look the nodes up, or parse the text."""
        loader = composer.loader
        reader = getattr(loader, "_reader", None) or loader
        text = getattr(reader, "whole_text", None)
        if text is None:
            return compose(composer)
        kind = getattr(loader, "typ", type(loader))
        key = (str(kind), getattr(loader, "version", None), *text)
        if key not in known:
            known[key] = compose(composer)
        return known[key]

    patch.setattr(Reader, "stream", property(stream.fget, set_stream))
    patch.setattr(Composer, "get_single_node", get_single_node)
