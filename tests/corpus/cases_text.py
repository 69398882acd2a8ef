"""Files that aren't YAML, or not the plain data that a spec is."""

from __future__ import annotations

from tests.corpus.harness import BASE, Case, appended, changed, invalid

TOO_LARGE = "the file is larger than 524288 bytes"
BILLION = "let:\n  a: 1\nbomb:\n  - &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  - {'§' if name == 'd' else ''}&{name} [{', '.join([f'*{inner}'] * 10)}]\n"
    for inner, name in ("ab", "bc", "cd", "de", "ef")
)

CASES: list[Case] = [
    invalid("an empty file", b"", ("", "the file is empty", "schema_version: 1"), places=[(1, 1)]),
    invalid("only comments", b"# nothing\n\n", ("", "the file is empty", "schema_version: 1"), places=[(1, 1)]),
    invalid("only a byte order mark", b"\xef\xbb\xbf", ("", "the file is empty", "schema_version"), places=[(1, 1)]),
    invalid("a list at the top", "§- schema_version: 1\n- model: {}\n", ("", "not a list", "Delete the dash")),
    invalid("a text at the top", "§just words\n", ("", "must be a mapping", "schema_version: 1")),
    invalid("a number at the top", "§42\n", ("", "not 42", "schema_version: 1")),
    invalid("UTF-16", "schema_version: 1\n".encode("utf-16"), ("", "UTF-16", "UTF-8"), places=[(1, 1)]),
    invalid("unmarked UTF-16", "schema_version: 1\n".encode("utf-16-be"), ("", "UTF-16", "UTF-8"), places=[(1, 1)]),
    invalid("UTF-32", "schema_version: 1\n".encode("utf-32"), ("", "UTF-32", "UTF-8"), places=[(1, 1)]),
    invalid(
        "Latin-1",
        changed("name: tiny", "name: café").encode("latin-1"),
        ("", "the byte 0xe9 is not UTF-8", "Save the file as UTF-8"),
        places=[(3, 12)],
    ),
    invalid(
        "a column counted in characters, not bytes",
        changed("name: tiny", "name: 한글").encode() + b"  \xff",
        ("", "0xff", "UTF-8"),
        places=[(34, 3)],
    ),
    invalid("a NUL byte", changed("tiny", "ti§\0ny"), ("", "U+0000", "Delete this character")),
    invalid("an escape character", changed("tiny", "ti§\x1b[31mny"), ("", "U+001B", "Delete this character")),
    invalid("a file beyond the size limit", b"# " + b"x" * 2**20, ("", TOO_LARGE, "repeat"), places=[(1, 1)]),
    invalid("a tab as indentation", changed("  d_model", "§\td_model"), ("", "a tab", "spaces")),
    invalid("a tab after spaces", changed("  d_model", "  §\td_model"), ("", "a tab", "spaces")),
    invalid("a second document", appended("§---\nschema_version: 1\n"), ("", "second document", "'---'")),
    invalid("text after the end", appended("...\n§model: {}\n"), ("", "after the end", "Delete it")),
    invalid("a closing brace too many", "{schema_version: 1}§}\n", ("", "after the end", "Delete it")),
    invalid(
        "a duplicate key",
        changed("  n_heads: 4", "  n_heads: 4\n  §d_model: 32"),
        ("", "on line 4", "line 4 or line 8"),
    ),
    invalid(
        "a duplicate key on one line",
        changed("  - template: decoder\n    repeat: 2", "  - { template: decoder, repeat: 2, §repeat: 3 }"),
        ("", "on line 30", "Delete one of the two"),
    ),
    invalid(
        "a duplicate section",
        appended("§head:\n  type: causal_lm\n"),
        ("", "the key head stands here again", "line 32 or line 34"),
    ),
    invalid(
        "a duplicate template, quoted otherwise",
        changed("layer_schedule:", "  §'decoder': {}\nlayer_schedule:"),
        ("", "the key decoder", "line 14"),
    ),
    invalid("a number as a key", changed("  decoder:", "  §1:"), ("", "not 1", 'Put it in quotes: "1"')),
    invalid("a boolean as a key", changed("  decoder:", "  §true:"), ("", "not true", '"true"')),
    invalid("null as a key", changed("  decoder:", "  §~:"), ("", "not null", '"null"')),
    invalid("a list as a key", changed("  decoder:", "  ? §[a, b]\n  :"), ("", "a list or mapping", "plain word")),
    invalid("infinity", changed("n_heads: 4", "n_heads: 4\n  mlp_ratio: §.inf"), ("", ".inf", "finite")),
    invalid("minus infinity", changed("n_heads: 4", "n_heads: 4\n  norm_eps: §-.INF"), ("", "-.INF", "finite")),
    invalid("not a number", changed("n_heads: 4", "n_heads: 4\n  norm_eps: §.nan"), ("", ".nan", "finite")),
    invalid("a float beyond doubles", changed("n_heads: 4", "n_heads: 4\n  norm_eps: §1e999"), ("", "1e999", "finite")),
    invalid("an integer of five thousand digits", changed("64", "§" + "9" * 5000), ("", "5000 characters", "40")),
    invalid(
        "a Python object tag",
        changed("name: tiny", "name: §!!python/object/apply:os.system ['touch executed']"),
        ("", "!!python/object/apply:os.system", "Delete the tag"),
    ),
    invalid(
        "a Python name tag",
        changed("name: tiny", "name: §!!python/name:os.system x"),
        ("", "plain data", "Delete the tag !!python/name:os.system"),
    ),
    invalid(
        "a Python module tag on a mapping",
        changed("name: tiny", "name: §!!python/object/new:subprocess.Popen {args: [touch, executed]}"),
        ("", "plain data", "Delete the tag"),
    ),
    invalid("a binary tag", changed("name: tiny", "name: §!!binary aGk="), ("", "!!binary", "Delete the tag")),
    invalid("an own tag", changed("name: tiny", "name: §!secret x"), ("", "!secret", "Delete the tag")),
    invalid("an undefined tag handle", changed("name: tiny", "name: §!e!x y"), ("", "undefined tag", "'!'")),
    invalid("a tag that does not fit", changed("64", "§!!int many"), ("", "does not fit", "Delete the tag !!int")),
    invalid("a recursive alias", changed("name: tiny", "name: &n [§*n]"), ("", "inside the value", "instead of *n")),
    invalid("a recursive mapping", "model: &m {inner: §*m}\n", ("", "*m", "Write")),
    invalid("an alias without anchor", changed("name: tiny", "name: §*tiny"), ("", "no anchor", "&tiny")),
    invalid(
        "a misspelt alias",
        changed("name: tiny", "name: &base tiny\n  family_hint: §*bases"),
        ("", "*bases", "Type *base"),
    ),
    invalid("an explosion of aliases", BILLION, ("", "more than 20000 values", "repeat")),
    invalid("a merge of a number", changed("name: tiny", "name: tiny\n  <<: §3"), ("", "merge key", "<<: *name")),
    invalid("two merge keys", changed("name: tiny", "name: tiny\n  <<: {}\n  §<<: {}"), ("", "<<", "Delete one")),
    invalid("nesting without end", "a: " + "[" * 39 + "§" + "[" * 60, ("", "40 deep", "at most 40")),
    invalid("a hundred thousand brackets", b"a: " + b"[" * 100_000, ("", "40 deep", "40"), places=[(1, 43)]),
    invalid("an unclosed bracket", "schema_version: 1\nlet: §{a: 1\nmodel: 2\n", ("", "line 2", "Type }")),
    invalid("an unclosed list", "schema_version: 1\nlet: §[1, 2\nmodel: 2\n", ("", "line 2", "Type ]")),
    invalid("an unclosed quotation mark", changed("tiny", '§"tiny'), ("", "never closed", "same mark")),
    invalid("an unknown escape", changed("tiny", '"t§\\iny"'), ("", "escape", "single quotes")),
    invalid("a colon without space", changed("d_model: 64", "d_model§:64"), ("", "a space is missing", "key: value")),
    invalid("a colon in a value", changed("name: tiny", "name: a§: b"), ("", "second colon", "in quotes")),
    invalid("a key without colon", changed("d_model: 64", "§d_model"), ("", "colon", "key: value")),
    invalid("a line indented too far", changed("  d_model: 64", "     d_model§: 64"), ("", "too far", "alike")),
    invalid(
        "a line indented too little", changed("  d_model: 64", " §d_model: 64"), ("", "indentation", "Line this up")
    ),
    invalid("a list beside keys", changed("head:", "§- head:"), ("", "a key was expected", "key: value")),
    invalid("an at sign", changed("tiny", "§@tiny"), ("", "begin with @", "quotes")),
    invalid("a percent sign", changed("tiny", "§%tiny"), ("", "begin with %", "quotes")),
    invalid("a pipe", changed("tiny", "§|tiny"), ("", "begin with |", "quotes")),
    invalid("an ampersand", changed("tiny", "§& tiny"), ("", "begin with &", "quotes")),
    invalid("colons inside a bracket", changed("name: tiny", "name: [a, §::b]"), ("", "a key was expected", "quotes")),
    invalid("a backtick", changed("tiny", "§`tiny`"), ("", "begin with `", "quotes")),
    invalid(
        "an unquoted expression in braces",
        "let: {a: 2}\nmodel: {d_model: §${let.a * 2}}\n",
        ("", "needs quotes", 'Type "${let.a * 2}"'),
    ),
    invalid("a YAML of the future", "§%YAML 9.9\n---\na: 1\n", ("", "incompatible", "YAML")),
    invalid(
        "several at once",
        "a: §.inf\nb: 1\n§b: 2\nc: §!!python/none x\n§3: x\n",
        ("", ".inf", "finite"),
        ("", "the key b", "line 2 or line 3"),
        ("", "!!python/none", "Delete"),
        ("", "not 3", '"3"'),
    ),
    invalid(
        "Windows line ends count as one line each",
        changed("  d_model: 64", "  d_model: 64\n  §d_model: 32").replace("\n", "\r\n"),
        ("", "on line 4", "line 4 or line 5"),
    ),
    invalid(
        "a byte order mark takes no column",
        b"\xef\xbb\xbf" + BASE.replace("schema_version: 1", "schema_version: .nan").encode(),
        ("", ".nan", "finite"),
        places=[(1, 17)],
    ),
]
