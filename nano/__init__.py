"""nano: a T5Gemma 2 in every part with a few million weights, trained here on tasks that can be checked exactly."""

from pathlib import Path

CHECKPOINT_DIR = Path(__file__).parent / "checkpoint"
