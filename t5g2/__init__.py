"""t5g2: the on-device runtime for T5Gemma 2.

    import t5g2
    model = t5g2.load("out/nano-int4")
    print(model.generate("ISO date: 3 March 2021").text)
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from t5g2.runtime.errors import T5g2Error, UsageError

if TYPE_CHECKING:
    from t5g2.runtime.model import Model, Options, Result, Score, Session, Stream, Token, load

__version__ = version("t5g2")
__all__ = ["Model", "Options", "Result", "Score", "Session", "Stream", "T5g2Error", "Token", "UsageError", "load"]


def __getattr__(name: str):
    # numpy and Pillow take time to import; `import t5g2` alone, and the errors, should not.
    if name in __all__:
        from t5g2.runtime import model

        return getattr(model, name)
    raise AttributeError(f"module 't5g2' has no attribute {name!r}")
