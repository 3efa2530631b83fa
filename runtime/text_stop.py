"""Stop strings over streamed text: emits nothing that may turn out to belong to one."""

from __future__ import annotations


class TextStop:
    """Push pieces of text, get back what is safe to show; `stopped` once a stop string was seen. Its text is not shown."""

    def __init__(self, strings: list[str]) -> None:
        self.strings = [s for s in strings if s]
        self.stopped = False
        self._held = ""

    def push(self, piece: str) -> str:
        if self.stopped:
            return ""
        self._held += piece
        found = [(at + len(s), at) for s in self.strings if (at := self._held.find(s)) >= 0]
        if found:
            self.stopped = True
            _, start = min(found)  # the one that was complete first, however the text was cut into pieces
            text, self._held = self._held[:start], ""
            return text
        keep = max((self._overlap(s) for s in self.strings), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        text, self._held = self._held, ""
        return text

    def _overlap(self, string: str) -> int:
        """How many characters at the end of the held text may be the start of `string`."""
        longest = min(len(self._held), len(string) - 1)
        return next((n for n in range(longest, 0, -1) if self._held.endswith(string[:n])), 0)
