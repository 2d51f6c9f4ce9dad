"""Line numbers of keys, in all the ways that TOML lets people write them."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from streamrnn.stream.config.toml_text import key_lines

DOCUMENT = '''\
# comment with a = 1 and [table]
top = "a # no comment"   # comment

[one]
plain = 1
"quoted = key" = 'lit # eral'
dotted.'key' . deep = 1979-05-27 07:32:00
text = """
inner = 1
[not.a.table] \\""" still
""""
literal = \'\'\'
inner = 2\'\'\'
list = [
  1,   # ] comment
  [2, "]"],
  { a = 1, "b" = [
     3 ] },
]
inline = { x = { y = 1 }, z = 2 }
[ one . two ]
last = true
[[many]]
a = 1
[[many]]
a = 2
[many.sub]
b = 3
[[many.deep]]
c = 4
'''


def test_every_form_of_a_key():
    lines = key_lines(DOCUMENT)
    assert {
        path: lines[path]
        for path in [
            ("top",),
            ("one",),
            ("one", "plain"),
            ("one", "quoted = key"),
            ("one", "dotted", "key", "deep"),
            ("one", "text"),
            ("one", "literal"),
            ("one", "list"),
            ("one", "list", 0),
            ("one", "list", 1, 1),
            ("one", "list", 2, "a"),
            ("one", "list", 2, "b", 0),
            ("one", "inline", "x", "y"),
            ("one", "inline", "z"),
            ("one", "two", "last"),
            ("many",),
            ("many", 0, "a"),
            ("many", 1, "a"),
            ("many", 1, "sub", "b"),
            ("many", 1, "deep", 0, "c"),
        ]
    } == {
        ("top",): 2,
        ("one",): 4,
        ("one", "plain"): 5,
        ("one", "quoted = key"): 6,
        ("one", "dotted", "key", "deep"): 7,
        ("one", "text"): 8,
        ("one", "literal"): 12,
        ("one", "list"): 14,
        ("one", "list", 0): 15,
        ("one", "list", 1, 1): 16,
        ("one", "list", 2, "a"): 17,
        ("one", "list", 2, "b", 0): 18,
        ("one", "inline", "x", "y"): 20,
        ("one", "inline", "z"): 20,
        ("one", "two", "last"): 22,
        ("many",): 23,
        ("many", 0, "a"): 24,
        ("many", 1, "a"): 26,
        ("many", 1, "sub", "b"): 28,
        ("many", 1, "deep", 0, "c"): 30,
    }


def test_every_path_of_the_parsed_document_has_a_line():
    lines = key_lines(DOCUMENT)

    def visit(value, path):
        if path:
            assert path in lines
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(item, dict | list):
                visit(item, (*path, key))
            else:
                assert (*path, key) in lines

    visit(tomllib.loads(DOCUMENT), ())


@given(st.text(alphabet="ab=.,[]{}\"'#\n 1\\", max_size=60))
def test_any_document_that_tomllib_takes_is_walked_through(text):
    try:
        tomllib.loads(text)
    except ValueError:
        return
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
