"""`let` and `${…}`: names that aren't there, arithmetic that has no value, and texts that would like to be programs."""

from __future__ import annotations

from tests.corpus.harness import BASE, Case, changed, invalid

LIMIT = "9223372036854775807"


def width(expression: str, let: str = "  a: 8\n") -> str:
    """The base spec with an expression as d_model."""
    return changed("d_model: 64", f"d_model: {expression}", f"let:\n{let}{BASE}")


def named(let: str) -> str:
    """The base spec with these lines under `let`."""
    return f"let:\n{let}{BASE}"


def hostile(name: str, expression: str, what: str, fix: str = "Use only numbers") -> Case:
    """An expression as d_model that must be refused at the mark."""
    return invalid(name, width(expression), ("model.d_model", what, fix))


CASES: list[Case] = [
    hostile("a call of __import__", "${§__import__('os').system('touch executed')}", "no functions", "Use only"),
    hostile("a function", "${§max(let.a, 3)}", "no functions", "Use only"),
    hostile("a lambda", "'${§lambda: 1}'", "lambda is not a name", "under let"),
    hostile("an attribute", "${§let.a.real}", "let.a.real is not a name", "Use only"),
    hostile("a dunder", "${§let.__class__.__mro__}", "is not a name", "Use only"),
    hostile("an index", "${let.a§[0]}", '"["', "Use only"),
    hostile("a text", '${§"x" * 10}', "has no meaning", "Use only"),
    hostile("a comparison", "${let.a §> 3}", '">"', "Use only"),
    hostile("a modulo", "${let.a §% 3}", '"%"', "Use only"),
    hostile("a bit shift", "${1 §<< 1000000}", '"<"', "Use only"),
    hostile("a power", "${9 §** 9 ** 9}", "power", "let.a * let.a"),
    hostile("a number that is a program", "${1§e}", "before e", "Use only"),
    hostile("an enormous exponent", "${§1e999999999}", "too long or too large", LIMIT),
    hostile("an enormous number", "${§" + "9" * 500 + "}", "too long", LIMIT),
    hostile(
        "an enormous product",
        "${" + "*".join(["99999"] * 3) + "§*" + "*".join(["99999"] * 100) + "}",
        "larger than",
        LIMIT,
    ),
    hostile("an enormous expression", "${§" + "1+" * 100_000 + "1}", "200001 characters", "under let"),
    hostile("enormous nesting", "${" + "(" * 50 + "§" + "(" * 400 + "1" + ")" * 450 + "}", "50 deep", "under let"),
    hostile("division by zero", "${let.a §/ (let.a - 8)}", "division by zero", "isn't 0"),
    hostile("floor division by zero", "${let.a §// 0}", "division by zero", "isn't 0"),
    hostile("an empty expression", "${§}", "is empty", "number"),
    hostile("only spaces", "${§  }", "is empty", "number"),
    hostile("an operator without its right side", "${let.a *§}", "ends where", "Use only"),
    hostile("an operator without its left side", "${§* let.a}", "before *", "Use only"),
    hostile("a plus sign in front", "${§+let.a}", "before +", "Use only"),
    hostile("two values side by side", "${let.a §let.a}", "operator is missing", "Use only"),
    hostile("an unclosed parenthesis", "${§(let.a}", "never closed", "')'"),
    hostile("an unopened parenthesis", "${let.a§)}", "never opened", "')'"),
    hostile("a name without let", "${§a * 8}", "a is not a name of let", "Type let.a"),
    hostile("a misspelt name", "${§let.aa}", "no name aa", "Type let.a"),
    hostile("an unknown name", "${8 * §let.width}", "no name width", "Give width a value under let"),
    hostile("an expression inside a text", "§x${let.a}", "the whole value", "Write the text out"),
    hostile("two expressions in one value", "§${let.a}${let.a}", "the whole value", "Write the text out"),
    invalid(
        "an expression as a name",
        changed("name: tiny", "name: §model-${let.a}", f"let: {{a: 1}}\n{BASE}"),
        ("model.name", "the whole value", "stands for a number only"),
    ),
    invalid("a name that is defined by itself", named("  a: §${let.a + 1}\n"), ("let.a", "a → a", "a number")),
    invalid(
        "a circle of names",
        named("  a: §${let.b}\n  b: ${let.c}\n  c: ${let.a}\n"),
        ("let.a", "a → b → c → a", "Give one of these names a number"),
    ),
    invalid("let as a list", f"§let:\n  - a: 1\n{BASE}", ("let", "must be a mapping", "let:")),
    invalid("let left empty", f"§let:\n{BASE}", ("let", "must be a mapping", "let:")),
    invalid("a boolean in let", named("  a: §true\n"), ("let.a", "not true", "a: 64")),
    invalid("a text in let", named("  a: §wide\n"), ("let.a", 'the text "wide"', "${let.wide}")),
    invalid("arithmetic without braces", named("  b: 2\n  a: §b * 64\n"), ("let.a", "text", "${let.b * 64}")),
    invalid("null in let", named("  §a:\n"), ("let.a", "not null", "a: 64")),
    invalid("a list in let", named("  §a: [1]\n"), ("let.a", "not [1]", "a: 64")),
    invalid("a let name with a hyphen", named("  a-b: §1\n"), ("let.a-b", "can't be a name", "letters")),
    invalid(
        "a fraction for a whole number",
        width("§${let.a / 3}"),
        ("model.d_model", "must be a whole number, not 2.66", "with // instead of /"),
    ),
    invalid("a negative size", width("§${let.a - 9}"), ("model.d_model", "at least 1, not -1", "at least 1")),
    invalid(
        "several at once",
        width("${§let.zz}", "  a: ${1 §/ 0}\n  b: ${§let.c}\n"),
        ("let.a", "division by zero", "isn't 0"),
        ("let.b", "no name c", "Give c a value"),
        ("model.d_model", "no name zz", "Give zz a value"),
    ),
]
