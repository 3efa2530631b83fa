"""Android's class library as a compiler sees it: class files without code, made from its signatures.

Android's sources list their public API in api/current.txt, a line for each declaration; names are whole, but for java.lang's:

    package android.util {

      public class LruCache<K, V> {
        ctor public LruCache(int);
        method @Nullable public final V get(@NonNull K);
"""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack

PRIMITIVES = dict(boolean="Z", byte="B", char="C", double="D", float="F", int="I", long="J", short="S", void="V")
OBJECT = "Ljava/lang/Object;"
PUBLIC, PROTECTED, STATIC, FINAL, VARARGS, INTERFACE, ABSTRACT, ENUM = 0x1, 0x4, 0x8, 0x10, 0x80, 0x200, 0x400, 0x4000
MODIFIERS = dict(public=PUBLIC, protected=PROTECTED, static=STATIC, final=FINAL, abstract=ABSTRACT)
MODIFIERS |= dict.fromkeys(("default", "native", "synchronized", "transient", "volatile"), 0)  # nothing to who calls it
KINDS = {"class": 0, "enum": ENUM, "interface": INTERFACE | ABSTRACT, "@interface": INTERFACE | ABSTRACT | 0x2000}
TEXT, INTEGER, FLOAT, LONG, DOUBLE, CLASS, STRING = 1, 3, 4, 5, 6, 7, 8  # tags of constants
JAVA_8 = 52
NULLNESS = {"NonNull", "Nullable"}  # the annotations that mean something to a compiler

HEADER = re.compile(r"(?:^| )(class|enum|@?interface) ([\w.]+)")
MEMBER = re.compile(r'(.*?)(?: = ("(?:[^"\\]|\\.)*"|[^;]+);.*)?')  # and its value
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|@?\w+(?:\.\w+)*|\.\.\.|\S')


@dataclass
class Declaration:
    name: str  # as class files write it: java/util/Map$Entry
    header: str
    members: list[str] = field(default_factory=list)
    nested: list["Declaration"] = field(default_factory=list)
    outer: "Declaration | None" = None

    @property
    def inner(self) -> bool:
        """It has an instance of its outer class."""
        return self.outer is not None and not re.search(r"\b(static|enum|interface)\b", self.header)


def declarations(lists: Iterable[str]) -> dict[str, Declaration]:
    """Those of all lists, by name; a class that is in several has the members of each."""
    package, declared, classes = "", None, {}
    for line in (line for signatures in lists for line in signatures.splitlines()):
        if line.startswith("package "):
            package = line.split()[1]
        elif line.startswith("    "):
            declared.members.append(line.strip())
        elif line.endswith("{"):
            name = HEADER.search(line)[2]
            internal = f"{package}.".replace(".", "/") + name.replace(".", "$")
            declared = classes.setdefault(f"{package}.{name}", Declaration(internal, line))
    for name, declared in classes.items():
        declared.outer = classes.get(name.rpartition(".")[0])
        if declared.outer:
            declared.outer.nested.append(declared)
    return classes


class Line:
    """A declaration that is read from left to right, types as class files write them: (descriptor, signature)."""

    def __init__(self, classes: dict[str, Declaration], text: str, variables: dict[str, str]):
        self.classes = classes
        self.variables = dict(variables)  # type variables' descriptors
        self.tokens = TOKEN.findall(text)[::-1]

    def next_is(self, *tokens: str) -> bool:
        return self.tokens[-1] in tokens

    def take(self, *tokens: str) -> str | None:
        """The next token, if it is one of these, or any."""
        return self.tokens.pop() if not tokens or self.next_is(*tokens) else None

    def modifiers(self) -> tuple[int, set[str]]:
        """Their flags; their words and annotations."""
        flags, words = 0, set()
        while self.next_is(*MODIFIERS) or (self.tokens[-1][0] == "@" and not self.next_is("@interface")):
            word = self.take()
            words.add(word.removeprefix("@"))
            flags |= MODIFIERS.get(word, 0)
            depth = word[0] == "@" and bool(self.take("("))
            while depth:
                depth += {"(": 1, ")": -1}.get(self.take(), 0)
        return flags, words

    def type(self) -> tuple[str, str]:
        name = self.take()
        if name in PRIMITIVES:
            descriptor = signature = PRIMITIVES[name]
        elif name in self.variables:
            descriptor, signature = self.variables[name], f"T{name};"
        else:
            declared = self.classes.get(name) or self.classes.get(f"java.lang.{name}")
            if not declared:
                raise ValueError(f"{name} is not declared")
            arguments = f"<{''.join(self._type_arguments())}>" if self.next_is("<") else ""
            descriptor, signature = f"L{declared.name};", f"L{declared.name}{arguments};"
        while self.take("[", "..."):
            self.take("]")
            descriptor, signature = f"[{descriptor}", f"[{signature}"
        return descriptor, signature

    def _type_arguments(self) -> Iterator[str]:
        while self.take("<", ","):
            if not self.take("?"):
                yield self.type()[1]
            elif bound := self.take("extends", "super"):
                yield {"extends": "+", "super": "-"}[bound] + self.type()[1]
            else:
                yield "*"
        self.take(">")

    def type_parameters(self) -> str:
        """Their signature; from here on they are type variables."""
        if not self.next_is("<"):
            return ""
        parameters = ""
        while self.take("<", ","):
            name = self.take()
            self.variables[name] = OBJECT  # for bounds that name it
            bounds = []
            while self.take("extends", "&"):
                bounds.append(self.type())
            bounds = bounds or [(OBJECT, OBJECT)]
            self.variables[name] = bounds[0][0]
            parameters += name + "".join(f":{signature}" for _, signature in bounds)
        self.take(">")
        return f"<{parameters}>"

    def types_after(self, word: str) -> list[tuple[str, str]]:
        types = []
        if self.take(word):
            while not self.next_is("implements", "{"):
                types.append(self.type())
        return types


def counted(parts: list[bytes]) -> bytes:
    return pack(">H", len(parts)) + b"".join(parts)


class ClassFile:
    def __init__(self, classes: dict[str, Declaration], declared: Declaration):
        self.classes, self.declared = classes, declared
        self.constants, self.size = {}, 1
        # Android means the annotations of java.* as hints; to who compiles with a JDK these types may be null or not.
        self.annotations = set() if declared.name.startswith("java/") else NULLNESS

    def constant(self, tag: int, content: bytes) -> int:
        whole = bytes([tag]) + content
        if whole not in self.constants:
            self.constants[whole] = self.size
            self.size += 2 if tag in (LONG, DOUBLE) else 1
        return self.constants[whole]

    def text(self, text: str) -> bytes:
        content = text.encode()
        return pack(">H", self.constant(TEXT, pack(">H", len(content)) + content))

    def type(self, name: str) -> bytes:
        return pack(">H", self.constant(CLASS, self.text(name)))

    def value(self, descriptor: str, written: str) -> bytes:
        if descriptor == "Ljava/lang/String;":
            number = self.constant(STRING, self.text(json.loads(written)))
        elif descriptor in "FD":
            tag, code = (FLOAT, ">f") if descriptor == "F" else (DOUBLE, ">d")
            number = self.constant(tag, pack(code, float(written.rstrip("f"))))
        elif descriptor == "J":
            number = self.constant(LONG, pack(">q", int(written.rstrip("L"))))
        else:
            number = self.constant(INTEGER, pack(">i", written == "true" if descriptor == "Z" else int(written)))
        return pack(">H", number)

    def attribute(self, name: str, content: bytes = b"") -> bytes:
        return self.text(name) + pack(">I", len(content)) + content

    def annotated(self, words: set[str]) -> bytes:
        kept = sorted(words & self.annotations)
        return counted([self.text(f"Landroid/annotation/{name};") + pack(">H", 0) for name in kept])

    def attributes(self, words: set[str], signature: str) -> list[bytes]:
        deprecated = [self.attribute("Deprecated")] if "Deprecated" in words else []
        annotated = self.attribute("RuntimeInvisibleAnnotations", self.annotated(words))
        return [*deprecated, annotated, self.attribute("Signature", self.text(signature))]

    def member(self, flags: int, name: str, descriptor: str, attributes: list[bytes]) -> bytes:
        return pack(">H", flags) + self.text(name) + self.text(descriptor) + counted(attributes)

    def field(self, line: Line, value: str | None) -> bytes:
        flags = ENUM if line.take() == "enum_constant" else 0
        modifiers, words = line.modifiers()
        descriptor, signature = line.type()
        attributes = self.attributes(words, signature)
        if value and not value.startswith("("):  # 0.0/0.0 and the like are no constants
            attributes.append(self.attribute("ConstantValue", self.value(descriptor, value)))
        return self.member(flags | modifiers, line.take(), descriptor, attributes)

    def method(self, line: Line, of_interface: bool, outer: str) -> bytes:
        """outer: the descriptor of the instance that constructors of an inner class are given first."""
        constructor = line.take() == "ctor"
        flags, words = line.modifiers()
        flags |= VARARGS if "..." in line.tokens else 0
        flags |= ABSTRACT if of_interface and not words & {"default", "static"} else 0
        generic = line.type_parameters()
        if constructor:
            line.variables.setdefault("T", OBJECT)  # lists leave out the type parameters that a few constructors have
        descriptor, signature = ("V", "V") if constructor else line.type()
        name = line.take()
        types, annotated = [], []
        line.take("(")
        while not line.take(")"):
            annotated.append(self.annotated(line.modifiers()[1]))
            types.append(line.type())
            line.take(",")
        descriptor = f"({outer if constructor else ''}{''.join(one for one, _ in types)}){descriptor}"
        attributes = self.attributes(words, f"{generic}({''.join(one for _, one in types)}){signature}")
        annotations = bytes([len(types)]) + b"".join(annotated)
        attributes.append(self.attribute("RuntimeInvisibleParameterAnnotations", annotations))
        return self.member(flags, "<init>" if constructor else name, descriptor, attributes)

    def header(self, declared: Declaration) -> tuple[Line, int, set[str], str]:
        """Read up to the type parameters; flags, words and these."""
        line = Line(self.classes, declared.header, self.header(declared.outer)[0].variables if declared.inner else {})
        flags, words = line.modifiers()
        flags |= KINDS[line.take()]
        line.take()
        return line, flags, words, line.type_parameters()

    def inner_class(self, declared: Declaration) -> bytes:
        simple = self.text(declared.name.rpartition("$")[2])
        return self.type(declared.name) + self.type(declared.outer.name) + simple + pack(">H", self.header(declared)[1])

    def bytes(self) -> bytes:
        line, flags, words, generic = self.header(self.declared)
        own = f"L{self.declared.name};"
        outer = f"L{self.declared.outer.name};" if self.declared.inner else ""
        extended, implemented = line.types_after("extends"), line.types_after("implements")
        fields, methods = [], []
        if flags & INTERFACE:
            extended, implemented = [], extended or implemented
        if flags & ENUM:  # what every enum has, lists leave out
            extended = [("Ljava/lang/Enum;", f"Ljava/lang/Enum<{own}>;")]
            methods.append(self.member(PUBLIC | STATIC, "values", f"()[{own}", []))
            methods.append(self.member(PUBLIC | STATIC, "valueOf", f"(Ljava/lang/String;){own}", []))
        for text, value in (MEMBER.fullmatch(member).groups() for member in self.declared.members):
            member = Line(self.classes, text, line.variables)
            if member.next_is("field", "enum_constant"):
                fields.append(self.field(member, value))
            else:
                methods.append(self.method(member, bool(flags & INTERFACE), outer))

        supertypes = [*(extended or [(OBJECT, OBJECT)]), *implemented]
        attributes = self.attributes(words, generic + "".join(signature for _, signature in supertypes))
        family = [*self.declared.nested, *([self.declared] if self.declared.outer else [])]
        attributes.append(self.attribute("InnerClasses", counted([self.inner_class(one) for one in family])))
        parent, *interfaces = (self.type(descriptor[1:-1]) for descriptor, _ in supertypes)
        parent = pack(">H", 0) if own == OBJECT else parent
        body = pack(">H", (flags | PUBLIC) & ~(STATIC | PROTECTED)) + self.type(self.declared.name) + parent
        body += counted(interfaces) + counted(fields) + counted(methods) + counted(attributes)
        return pack(">IHHH", 0xCAFEBABE, 0, JAVA_8, self.size) + b"".join(self.constants) + body


def write_jar(lists: Iterable[str], jar: Path) -> None:
    classes = declarations(lists)
    with zipfile.ZipFile(jar, "w") as archive:
        for declared in classes.values():
            archive.writestr(f"{declared.name}.class", ClassFile(classes, declared).bytes())
