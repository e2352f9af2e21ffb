"""What it means to leave something out of a source."""

import textwrap

import pytest

from upstream.slimming import (
    LeftOut,
    SlimmingError,
    cut,
    positions,
)

LEFT_OUT = LeftOut(
    names={"check": None, "is_good": True},
    attributes={"cache": None},
    keys={"export": "last", "cache": None},
    parameters={"load": {"kind": "plain", "extra": None}},
)


def slim(text):
    """A source cut by LEFT_OUT."""
    text = textwrap.dedent(text).lstrip("\n")
    return cut(text, LEFT_OUT, positions([text]))


@pytest.mark.parametrize(
    ("condition", "branch"),
    [
        ('hparams["cache"]', "no"),
        ('not hparams["cache"]', "yes"),
        ('hparams["cache"] is None', "yes"),
        ('"cache" in hparams', "no"),
        ('hparams.get("cache") is not None and ready', "no"),
        ('hparams["export"] == "last"', "yes"),
        ('hparams["export"] in ("best",)', "no"),
        ("self.cache and ready", "no"),
        ("not is_good(ready)", "no"),
    ],
)
def test_conditions_on_what_is_left_out_are_decided(condition, branch):
    text = f"""
    def run(hparams, ready):
        if {condition}:
            # Said why
            yes()
        else:
            no()
        after()
    """
    expected = (
        "    # Said why\n    yes()\n" if branch == "yes" else "    no()\n"
    )
    assert slim(text) == (f"def run(hparams, ready):\n{expected}    after()\n")


def test_an_undecided_part_of_a_condition_stays():
    text = """
    def run(hparams, ready):
        if ready or hparams["cache"]:
            yes()
    """
    assert "if ready:\n" in slim(text)


def test_statements_and_arguments_that_need_it_go_with_it():
    text = """
    def run(hparams, data):
        # The cache's own place
        place = hparams["cache"]
        check(data)
        open_cache(place)
        train(
            data,
            cache=place,
            size=3,
        )
        return data, place
    """
    assert slim(text).split() == [
        *("def", "run(hparams,", "data):"),
        *("train(", "data,", "size=3,", ")"),
        *("return", "(data,)"),
    ]


def test_parameters_go_with_their_arguments_and_descriptions():
    text = '''
    def load(source, kind="plain", extra=None):
        """Loads.

        Arguments
        ---------
        source : str
            Where from.
        kind : str
            How it is
            read.
        """
        if kind == "plain":
            return read(source)
        return other(source, extra)


    load("a", "plain")
    load("a", extra=1)
    '''
    assert slim(text) == textwrap.dedent(
        '''\
        def load(source):
            """Loads.

            Arguments
            ---------
            source : str
                Where from.
            """
            return read(source)


        load("a")
        load("a")
        '''
    ).replace('load("a")', 'load("a" )').replace('"a" )', '"a")')


def test_an_argument_goes_also_where_its_call_moves_first():
    text = """
    def load(source, extra):
        read(source)


    def run(extra):
        with check():
            load("a", extra)
    """
    text = cut(textwrap.dedent(text), LEFT_OUT, positions([]))
    assert '    load("a")\n' in text.replace('"a" )', '"a")')


def test_fields_of_a_dataclass_are_parameters():
    text = """
    @dataclass
    class load:
        source: str
        kind: str = "plain"
        size: int = 3


    load("a", "plain", 4)
    """
    assert "kind" not in slim(text)
    assert slim(text).endswith('load("a",  4)\n')


def test_a_block_that_is_left_empty_goes():
    text = """
    def run(values):
        for value in values:
            check(value)
        with check():
            work()
    """
    assert slim(text) == "def run(values):\n    work()\n"


def test_an_error_that_would_always_be_raised_is_refused():
    text = """
    def run(hparams):
        if not hparams["cache"]:
            raise ValueError("no cache")
        work()
    """
    with pytest.raises(SlimmingError, match="always reached"):
        slim(text)
