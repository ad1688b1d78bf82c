"""From text to `ast`: precedence climbing, with the macros expanded into nodes of their own.

Source: the CEL specification, "Syntax" and "Macros"; cel-go's extensions for optional values, two-variable
comprehensions and bindings. Wording of refusals: the original's parser.
"""

from __future__ import annotations

from sampan.api.cel.ast import Call, Choice, Const, Expr, ListOf, Logic, Macro, Make, MapOf, Name, Select
from sampan.api.cel.lexer import SyntaxProblem, Token, tokens
from sampan.api.cel.values import INT_MAX

SIZE_LIMIT = 100_000  # code points of an expression
DEPTH_LIMIT = 100  # of nesting; the original's 250 levels are frames of its parser, several a nesting

_RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var void while".split()
)
_RELATIONS = {"==", "!=", "<", "<=", ">", ">=", "in"}
_EXPECTED = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"

# macro -> numbers of arguments, how many of them are variable names
_MACROS: dict[str, tuple[tuple[int, ...], int]] = {
    "all": ((2,), 1),
    "exists": ((2,), 1),
    "exists_one": ((2,), 1),
    "map": ((2, 3), 1),
    "filter": ((2,), 1),
    "optMap": ((2,), 1),
    "optFlatMap": ((2,), 1),
}
_MACROS_TWO: dict[str, tuple[int, ...]] = {
    "all": (3,),
    "exists": (3,),
    "exists_one": (3,),
    "existsOne": (3,),
    "transformList": (3, 4),
    "transformMap": (3, 4),
    "transformMapEntry": (3, 4),
}


def parse(text: str) -> Expr:
    """The expression. Raises SyntaxProblem."""
    if len(text) > SIZE_LIMIT:
        raise SyntaxProblem(
            f"expression code point size exceeds limit: size: {len(text)}, limit {SIZE_LIMIT}", 0
        )
    parser = _Parser(tokens(text))
    expr = parser.expression()
    rest = parser.now
    if rest.kind != "end":
        raise SyntaxProblem(f"Syntax error: extraneous input '{rest.text}' expecting <EOF>", rest.at)
    return expr


class _Parser:
    def __init__(self, words: list[Token]) -> None:
        self._words = words
        self._index = 0
        self._depth = 0
        self.now = words[0]

    def _next(self) -> Token:
        word = self.now
        if word.kind != "end":
            self._index += 1
            self.now = self._words[self._index]
        return word

    def _take(self, kind: str) -> bool:
        if self.now.kind != kind:
            return False
        self._next()
        return True

    def _expect(self, kind: str) -> Token:
        if self.now.kind != kind:
            word = self.now
            raise SyntaxProblem(f"Syntax error: mismatched input '{word.text}' expecting '{kind}'", word.at)
        return self._next()

    def expression(self) -> Expr:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise SyntaxProblem("expression recursion limit exceeded: 250", self.now.at)
        condition = self._logic(False)
        if self.now.kind == "?":
            at = self._next().at
            then = self._logic(False)
            self._expect(":")
            condition = Choice(at, condition, then, self.expression())
        self._depth -= 1
        return condition

    def _logic(self, conjunction: bool) -> Expr:
        """`||` of `&&` of relations."""
        operator = "&&" if conjunction else "||"
        first = self._relation() if conjunction else self._logic(True)
        if self.now.kind != operator:
            return first
        parts, at = [first], self.now.at
        while self._take(operator):
            parts.append(self._relation() if conjunction else self._logic(True))
        return Logic(at, conjunction, parts)

    def _relation(self) -> Expr:
        left = self._sum()
        while self.now.kind in _RELATIONS:
            word = self._next()
            function = "@in" if word.kind == "in" else f"_{word.kind}_"
            left = Call(word.at, function, [left, self._sum()])
        return left

    def _sum(self) -> Expr:
        left = self._product()
        count = 0
        while self.now.kind in ("+", "-"):
            word = self._next()
            left = Call(word.at, f"_{word.kind}_", [left, self._product()])
            count = self._chained(count)
        return left

    def _product(self) -> Expr:
        left = self._unary()
        count = 0
        while self.now.kind in ("*", "/", "%"):
            word = self._next()
            left = Call(word.at, f"_{word.kind}_", [left, self._unary()])
            count = self._chained(count)
        return left

    def _chained(self, count: int) -> int:
        """Chains are trees as deep as they are long."""
        if count > DEPTH_LIMIT:
            raise SyntaxProblem("expression recursion limit exceeded: 250", self.now.at)
        return count + 1

    def _unary(self) -> Expr:
        word = self.now
        if word.kind not in ("!", "-"):
            return self._member()
        count = 0
        while self._take(word.kind):
            count += 1
        negates = word.kind == "-"
        literal = self.now
        if (
            negates
            and literal.kind == "const"
            and type(literal.value) in (int, float)
            and self._words[self._index + 1].kind not in (".", "[")
        ):
            self._next()
            value = literal.value if count % 2 == 0 else -literal.value
            if value > INT_MAX:
                raise SyntaxProblem("invalid int literal", literal.at)
            return Const(word.at, value)
        operand = self._member()
        return operand if count % 2 == 0 else Call(word.at, "-_" if negates else "!_", [operand])

    def _member(self) -> Expr:
        expr = self._primary()
        count = 0
        while True:
            count = self._chained(count)
            word = self.now
            if word.kind == ".":
                self._next()
                optional = self._take("?")
                name = self._field()
                if self.now.kind == "(" and not optional:
                    expr = self._method(expr, name)
                else:
                    expr = Select(word.at, expr, name.value, optional)
            elif word.kind == "[":
                self._next()
                optional = self._take("?")
                index = self.expression()
                self._expect("]")
                expr = Call(word.at, "_[?_]" if optional else "_[_]", [expr, index])
            elif word.kind == "{" and isinstance(expr, Name | Select):
                expr = Make(word.at, _dotted(expr), self._members())
            else:
                return expr

    def _field(self) -> Token:
        word = self._next()
        if word.kind == "quoted" or word.kind == "name":
            return word
        if word.kind == "end":
            raise SyntaxProblem("Syntax error: no viable alternative at input '.'", word.at)
        raise SyntaxProblem(f"Syntax error: mismatched input '{word.text}' expecting IDENTIFIER", word.at)

    def _primary(self) -> Expr:
        word = self._next()
        match word.kind:
            case "const":
                if type(word.value) is int and word.value > INT_MAX:
                    raise SyntaxProblem("invalid int literal", word.at)
                return Const(word.at, word.value)
            case "(":
                expr = self.expression()
                self._expect(")")
                return expr
            case "[":
                return self._list(word)
            case "{":
                return self._map(word)
            case ".":
                return self._identifier(self._expect("name"))
            case "name":
                return self._identifier(word)
        raise SyntaxProblem(f"Syntax error: mismatched input '{word.text}' expecting {_EXPECTED}", word.at)

    def _identifier(self, word: Token) -> Expr:
        if word.value in _RESERVED:
            raise SyntaxProblem(f"reserved identifier: {word.value}", word.at)
        if self.now.kind != "(":
            return Name(word.at, word.value)
        at = self.now.at
        args = self._arguments()
        if word.value == "has":
            if len(args) == 1:
                return self._has(args[0])
            raise SyntaxProblem("invalid argument to has() macro", at)
        return Call(at, word.value, args)

    def _has(self, arg: Expr) -> Expr:
        if not isinstance(arg, Select) or arg.test:
            raise SyntaxProblem("invalid argument to has() macro", arg.at)
        arg.test = True
        return arg

    def _arguments(self) -> list[Expr]:
        self._expect("(")
        args: list[Expr] = []
        if self._take(")"):
            return args
        args.append(self.expression())
        while self._take(","):
            args.append(self.expression())
        self._expect(")")
        return args

    def _list(self, word: Token) -> Expr:
        items: list[tuple[Expr, bool]] = []
        while not self._take("]"):
            optional = self._take("?")
            items.append((self.expression(), optional))
            if not self._take(","):
                self._expect("]")
                break
        return ListOf(word.at, items)

    def _map(self, word: Token) -> Expr:
        entries: list[tuple[Expr, Expr, bool]] = []
        while not self._take("}"):
            optional = self._take("?")
            key = self.expression()
            self._expect(":")
            entries.append((key, self.expression(), optional))
            if not self._take(","):
                self._expect("}")
                break
        return MapOf(word.at, entries)

    def _members(self) -> list[tuple[str, Expr, bool]]:
        self._expect("{")
        members: list[tuple[str, Expr, bool]] = []
        while not self._take("}"):
            optional = self._take("?")
            name = self._field()
            self._expect(":")
            members.append((name.value, self.expression(), optional))
            if not self._take(","):
                self._expect("}")
                break
        return members

    def _method(self, target: Expr, name: Token) -> Expr:
        at = self.now.at
        args = self._arguments()
        function = name.value
        if isinstance(target, Name) and target.name == "cel" and function == "bind" and len(args) == 3:
            return Macro(at, "bind", args[1], [_variable(args[0])], [args[2]])
        one = _MACROS.get(function)
        if one is not None and len(args) in one[0]:
            return Macro(at, function, target, [_variable(args[0])], args[1:])
        two = _MACROS_TWO.get(function)
        if two is not None and len(args) in two:
            kind = "exists_one" if function == "existsOne" else function
            return Macro(at, kind, target, [_variable(args[0]), _variable(args[1])], args[2:])
        return Call(at, function, args, target)


def _variable(expr: Expr) -> str:
    if not isinstance(expr, Name):
        raise SyntaxProblem("argument must be a simple name", expr.at)
    return expr.name


def _dotted(expr: Expr) -> str:
    if isinstance(expr, Select):
        return f"{_dotted(expr.operand)}.{expr.field}"
    return expr.name if isinstance(expr, Name) else ""
