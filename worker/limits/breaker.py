"""Whether a deployment's hard failures are bad luck, one tenant's own problem, or evidence against it. Pure.

Calls are numbered in the order in which they began, because they do not end in that order: failures return at once,
answers take long, and a stalled call returns long after the deployment has recovered.
"""

from dataclasses import dataclass, field

BREAK_AFTER = 5
"""This many hard failures of a deployment are evidence against it if they are also at least half of the calls that
began between the first and the latest of them, and none of these was answered."""

WITNESS_S = 30.0
"""For this long an answer to another tenant shows that a tenant's failures are its own problem."""

MOST_RUNS = 100


@dataclass(slots=True)
class _Run:
    """The failures of a tenant without an answer since the first of them, and how others fared in the meantime.

    `first` is the number of its earliest failed call, `answered_at` in seconds.
    """

    first: int
    failures: int = 0
    others_failed: int = 0
    others_answered: int = 0
    answered_at: float = float("-inf")

    def is_tenants_own_fault(self, now: float) -> bool:
        """Its requests fail, as requests may that a server cannot handle, while those of most others are answered."""
        others_are_well = self.others_answered > self.others_failed and now - self.answered_at < WITNESS_S
        return self.failures >= BREAK_AFTER and others_are_well


@dataclass(slots=True)
class HardFailures:
    """The calls of one worker to one deployment, and the failures since it last proved itself.

    `disregarded` calls among those since `first` failed, and are their tenant's own problem. `now` is in seconds.
    """

    begun: int = 0
    answered: int = 0
    first: int = 0
    failures: int = 0
    disregarded: int = 0
    runs: dict[str, _Run] = field(default_factory=dict)

    def begin(self) -> int:
        """The number of a call that begins now."""
        self.begun += 1
        return self.begun

    def saw_answer(self, number: int, tenant: str, now: float) -> None:
        """Failures of calls that began before this one no longer count; later ones do, whatever its answer."""
        self._knew(number)
        self.runs.pop(tenant, None)
        for run in self.runs.values():
            if number > run.first:
                run.others_answered += 1
                run.answered_at = now
        self.answered = max(self.answered, number)
        if number >= self.first:
            self.failures = self.disregarded = 0

    def saw_failure(self, number: int, tenant: str, now: float) -> bool:
        """Whether the deployment should rest now."""
        self._knew(number)
        is_tenants_own_fault = self._run_of(tenant, number).is_tenants_own_fault(now)
        self._count(tenant, number)
        if number < self.answered:
            return False
        if is_tenants_own_fault:
            self.disregarded += bool(self.failures)
            return False
        if not self.failures:
            self.first = number
        self.first = min(self.first, number)
        self.failures += 1
        return self.failures >= max(BREAK_AFTER, (number - self.first + 1 - self.disregarded) / 2)

    def _knew(self, number: int) -> None:
        """Accept numbers assigned before the calls to this deployment were forgotten."""
        self.begun = max(self.begun, number)

    def _run_of(self, tenant: str, number: int) -> _Run:
        if tenant not in self.runs and len(self.runs) >= MOST_RUNS:
            del self.runs[next(iter(self.runs))]
        return self.runs.setdefault(tenant, _Run(number))

    def _count(self, tenant: str, number: int) -> None:
        for name, run in self.runs.items():
            if name == tenant:
                run.failures += 1
                run.first = min(run.first, number)
            else:
                run.others_failed += 1
