"""t5g2: the on-device runtime for T5Gemma 2.

    import t5g2
    model = t5g2.load("out/nano-int4")
    print(model.generate("ISO date: 3 March 2021").text)
"""

from importlib.metadata import version

from t5g2.runtime.errors import T5g2Error, UsageError

__version__ = version("t5g2")
__all__ = ["Model", "Result", "T5g2Error", "Token", "UsageError", "load"]


def __getattr__(name: str):
    # ExecuTorch and torch take seconds to import; `import t5g2` alone, and the errors, should not.
    if name in ("Model", "Result", "Token", "load"):
        from t5g2.runtime import model

        return getattr(model, name)
    raise AttributeError(f"module 't5g2' has no attribute {name!r}")
