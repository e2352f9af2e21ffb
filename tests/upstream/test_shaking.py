"""Only what the entry points reach stays."""

from upstream.shaking import shake


def test_only_what_is_reached_stays():
    modules = {
        "script": "from package.a import used\n\nused()\n",
        "package": "",
        "package.a": (
            "import os\nimport sys\n\nfrom package.b import helper\n\n"
            "LIMIT = 3\n\n\ndef used():\n    return helper(LIMIT, sys)\n\n\n"
            "def unused():\n    return os.sep\n"
        ),
        "package.b": (
            "class Helper:\n    def called(self):\n        pass\n\n"
            "    def no_longer_called(self):\n        pass\n\n"
            "    def override(self):\n        pass\n\n\n"
            "def helper(limit, module):\n    Helper().called()\n"
        ),
        "package.c": "def other(helper):\n    helper.no_longer_called()\n",
    }
    slim = shake(modules, ["script"], [], list(modules.values()))
    assert sorted(slim) == ["package", "package.a", "package.b", "script"]
    assert "unused" not in slim["package.a"]
    assert "import os" not in slim["package.a"]
    assert "LIMIT = 3" in slim["package.a"]
    assert "no_longer_called" not in slim["package.b"]
    assert "def called" in slim["package.b"]
    assert "def override" in slim["package.b"]
