"""What the nano model is shown at which step: the mix of tasks and how easy they are."""

from dataclasses import dataclass

from t5g2.nano.batches import draw, similar
from t5g2.nano.data import Example


@dataclass(frozen=True)
class Phase:
    """What the steps from `first` on train on, until the next phase begins."""

    first: int
    groups: tuple[dict[str, int], ...]  # examples per step, in groups of similar length so that padding stays small
    ease: dict[str, tuple[float, float]]  # of a task, at the begin and the end of the phase; 0 where absent
    lookup_characters: int  # of the look-ups drawn, a step takes those of about one length, as many as fit this


# The text tasks are learned within 300 steps and need little from then on; the pictured digits by step 500. Finding a
# record comes last, and comes on lists of 2 to 6 records: only then do the lists grow.
PHASES = (
    Phase(
        0,
        ({"date": 9, "number": 20, "note": 6}, {"fields": 8}, {"digits": 40, "shapes": 14}, {"lookup": 64}),
        {"digits": (1.0, 0.647), "lookup": (1.0, 0.647)},
        4000,
    ),
    Phase(
        300,
        ({"date": 5, "number": 16, "note": 4, "fields": 4}, {"digits": 44, "shapes": 12}, {"lookup": 64}),
        {"digits": (0.647, 0.412), "lookup": (0.647, 0.412)},
        4000,
    ),
    Phase(
        500,
        ({"date": 4, "number": 16, "note": 3, "fields": 4}, {"digits": 32, "shapes": 12}, {"lookup": 128}),
        {"digits": (0.412, 0.294), "lookup": (1.0, 1.0)},
        6000,
    ),
    Phase(
        600,
        ({"date": 4, "number": 16, "note": 4, "fields": 5}, {"digits": 12, "shapes": 20}, {"lookup": 96}),
        {"digits": (0.294, 0.0), "lookup": (1.0, 0.7)},
        6000,
    ),
    Phase(
        720,
        ({"date": 4, "number": 16, "note": 4, "fields": 5}, {"digits": 12, "shapes": 20}, {"lookup": 64}),
        {"lookup": (0.7, 0.0)},
        5000,
    ),
    Phase(
        850,
        ({"date": 4, "number": 16, "note": 4, "fields": 5}, {"digits": 12, "shapes": 20}, {"lookup": 64}),
        {},
        5000,
    ),
)


def groups_at(step: int, steps: int, seed: int) -> list[list[Example]]:
    """The training examples of one step out of `steps`, one list per group."""
    index = max(i for i, phase in enumerate(PHASES) if phase.first <= step)
    phase, last = PHASES[index], PHASES[index + 1].first if index + 1 < len(PHASES) else steps
    progress = (step - phase.first) / (last - phase.first)
    ease = {task: begin + (end - begin) * progress for task, (begin, end) in phase.ease.items()}
    key = f"{seed}/{step}"
    drawn = [draw(tasks, key, ease) for tasks in phase.groups]
    return [similar(group, phase.lookup_characters, key) if group[0].task == "lookup" else group for group in drawn]
