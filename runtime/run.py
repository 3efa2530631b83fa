"""t5g2-run: one prompt through a bundle, the answer streamed to stdout."""

from __future__ import annotations

import sys
from pathlib import Path

from t5g2.runtime.console import Parser, command, stderr_console
from t5g2.runtime.errors import T5g2Error, UsageError


def parser() -> Parser:
    p = Parser("t5g2-run", description="Answer a prompt with an exported bundle. The answer goes to stdout as it is made.")
    p.add_argument("bundle", type=Path, help="a folder made by t5g2-export")
    what = p.add_argument_group("prompt (one of these; without any it is read from stdin)")
    what.add_argument("--prompt", metavar="TEXT", help="the source text; one <start_of_image> in it per --image")
    what.add_argument("--file", metavar="FILE", type=Path, help="read the source text from a UTF-8 file; - is stdin")
    what.add_argument("--ids", metavar="IDS", help="source token ids, separated by spaces, as they are; prints target ids")
    p.add_argument("--image", metavar="FILE", type=Path, action="append", default=[], help="a picture; may be repeated")
    how = p.add_argument_group("generation")
    how.add_argument("--max-new-tokens", metavar="N", type=int, help="stop after N tokens (default: the bundle's limit)")
    how.add_argument("--min-new-tokens", metavar="N", type=int, default=0, help="do not stop before N tokens")
    how.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0 is greedy")
    how.add_argument("--top-k", metavar="K", type=int, default=0, help="sample from the K likeliest tokens; 0 is all")
    how.add_argument("--top-p", metavar="P", type=float, default=1.0, help="sample from the likeliest tokens up to P")
    how.add_argument("--seed", metavar="N", type=int, help="makes sampling repeatable")
    how.add_argument("--stop", metavar="TEXT", action="append", default=[], help="stop before TEXT; may be repeated")
    how.add_argument("--allow-unused", action="store_true", help="let the model answer with the vocabulary's unused tokens")
    p.add_argument("--threads", metavar="N", type=int, help="CPU threads (default: ExecuTorch's choice)")
    return p


@command("t5g2-run")
def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    source = _source(args)
    for image in args.image:
        if not image.is_file():
            raise T5g2Error(f"{image}: no such image file; check the path")
    console = stderr_console()
    with console.status("loading the bundle"):
        from t5g2.runtime.model import load

        model = load(args.bundle, threads=args.threads)
        tokens = model.stream(
            source,
            args.image,
            max_new_tokens=args.max_new_tokens,
            min_new_tokens=args.min_new_tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
            stop=args.stop,
            suppress_unused=not args.allow_unused,
        )
    with console.status("reading the source"):
        token = next(tokens, None)
    while token is not None:
        if args.ids is None:
            sys.stdout.write(token.text)
        elif token.id is not None:  # None comes with text that was held back
            sys.stdout.write(f"{token.id} ")
        sys.stdout.flush()
        token = next(tokens, None)
    sys.stdout.write("\n")
    return 0


def _source(args) -> str | list[int]:
    given = [name for name in ("prompt", "file", "ids") if getattr(args, name) is not None]
    if len(given) > 1:
        raise UsageError(f"give one of --prompt, --file and --ids, not {len(given)}")
    if args.prompt is not None:
        return args.prompt
    if args.ids is not None:
        try:
            return [int(word) for word in args.ids.replace(",", " ").split()]
        except ValueError:
            raise UsageError(f"--ids {args.ids!r}: give whole numbers separated by spaces") from None
    if args.file is not None and str(args.file) != "-":
        return _text(args.file, args.file.read_bytes())
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("no prompt; give --prompt TEXT, --file FILE, or pipe a text in")
    content = sys.stdin.buffer.read()
    if not content:
        raise UsageError("no prompt, stdin is empty; give --prompt TEXT, --file FILE, or pipe a text in")
    return _text("stdin", content)


def _text(name, content: bytes) -> str:
    """A text file's content without its last line end, which editors and `echo` add."""
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise T5g2Error(f"{name}: not UTF-8 text (byte {error.start}); convert it to UTF-8") from None


if __name__ == "__main__":
    sys.exit(main())
