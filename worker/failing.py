"""Whether a deployment's hard failures are bad luck or speak against it. Pure.

Calls are numbered in the order in which they began, because they do not end in that order: what failed came back at
once, what is answered takes long, and what stalls comes back when the deployment is long well again.
"""

from dataclasses import dataclass

BREAK_AFTER = 5
"""So many hard failures of a deployment speak against it when they are also at least half of the calls that began
between the first and the latest of them, and none of these was answered."""


@dataclass(slots=True)
class Failing:
    """The calls of one worker to one deployment, and the failures since it last proved itself."""

    begun: int = 0
    answered: int = 0
    first: int = 0
    failures: int = 0

    def begin(self) -> int:
        """The number of a call that begins now."""
        self.begun += 1
        return self.begun

    def saw_answer(self, number: int) -> None:
        """Failures of calls that began before this one prove nothing any more; later ones do, whatever it says."""
        self.answered = max(self.answered, number)
        if number >= self.first:
            self.failures = 0

    def saw_failure(self, number: int) -> bool:
        """Whether the deployment should rest now."""
        if number < self.answered:
            return False
        if not self.failures:
            self.first = number
        self.first = min(self.first, number)
        self.failures += 1
        return self.failures >= max(BREAK_AFTER, (number - self.first + 1) / 2)
