"""What is known about an input before its first call: which steps can serve its lines, and the expected cost.

Fed line by line while the input is read. Whether a request fits is an estimate, so lines that fit no step are reported,
not rejected.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from understudy.models.config.settings import Settings
from understudy.models.costs.forecast import Forecast
from understudy.models.jobs.submission import NewJob
from understudy.models.jobs.views import DeploymentTally
from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain
from understudy.models.routing.suitability import Suitability
from understudy.producer.number_format import counted, expected_cost

LINES_NAMED = 5
SKIPS_NAMED = 5
KNOWN_NEEDS = 10_000
KNOWN_CHAINS = 1_000

Skips = tuple[tuple[int, str], ...]
"""The steps that cannot serve a request: index, and the reason in a word or two."""


@dataclass(slots=True)
class _Fit:
    """Token counts up to which plain requests are known to fit all steps of a chain. Keeps the chain alive so that its
    `id()` is not reused."""

    chain: Chain
    conditional: bool
    input_tokens: int = -1
    output_tokens: int = -1


class Preflight:
    """`forecast`: tokens and cost. `notes`: sentences on how the input was read."""

    def __init__(
        self, settings: Settings, *, every_step: bool = False, answered: Iterable[DeploymentTally] = ()
    ) -> None:
        """As Forecast."""
        self.forecast = Forecast(settings, every_step=every_step, answered=answered)
        self._suitability = Suitability(settings)
        self._fits: dict[int, _Fit] = {}
        self._skips: dict[tuple[int, Needs], Skips] = {}
        self.notes: list[str] = []
        self.skips: Counter[tuple[str, str]] = Counter()  # lines by step and topic
        self.unfit = 0  # lines that fit no step
        self.unfit_lines: list[int] = []  # the first ones
        self.unfit_topics: Counter[str] = Counter()

    def add_all(self, jobs: Iterable[NewJob]) -> None:
        for job in jobs:
            self.add(job)

    def add(self, job: NewJob) -> None:
        fit = self._fits.get(id(job.chain)) or self._fit(job.chain)
        if job.needs is None and job.tokens <= fit.input_tokens and job.max_output_tokens <= fit.output_tokens:
            self.forecast.add(job)
            return
        skips = self._skips_of(fit, job)
        if not skips:
            self.forecast.add(job)
            return
        skipped = {step for step, _ in skips}
        self.forecast.add(job, [step for step in range(len(job.chain.steps)) if step not in skipped])
        self._note(job, skips)

    @property
    def expected(self) -> str:
        """The number of lines and their expected cost, as text."""
        lines = self.forecast.lines
        return f"{counted(lines, 'line')}, {expected_cost(self.forecast.estimate, lines)}"

    @property
    def findings(self) -> list[str]:
        """Sentences on how the input was read and which lines do not fit which steps, worst first."""
        found = [*self.notes, *([self._unfit_words()] if self.unfit else [])]
        for (step, topic), count in self.skips.most_common(SKIPS_NAMED):
            found.append(f"{counted(count, 'line')} will skip {step} ({topic})")
        if len(self.skips) > SKIPS_NAMED:
            found.append(f"and {counted(len(self.skips) - SKIPS_NAMED, 'more such step')}")
        return found

    def _unfit_words(self) -> str:
        more = ", …" if self.unfit > len(self.unfit_lines) else ""
        lines = ", ".join(f"{line:,}" for line in self.unfit_lines)
        topics = ", ".join(topic for topic, _ in self.unfit_topics.most_common())
        which = "line" if self.unfit == 1 else "lines"
        fit = "fits" if self.unfit == 1 else "fit"
        return (
            f"{self.unfit:,} of {counted(self.forecast.lines, 'line')} {fit} no step: {which} {lines}{more} ({topics})"
        )

    def _note(self, job: NewJob, skips: Skips) -> None:
        if len(skips) < len(job.chain.steps):
            self.skips.update((str(job.chain.steps[step]), topic) for step, topic in skips)
            return
        self.unfit += 1
        self.unfit_topics.update({topic for _, topic in skips})
        if len(self.unfit_lines) < LINES_NAMED:
            self.unfit_lines.append(job.line)

    def _fit(self, chain: Chain) -> _Fit:
        if len(self._fits) >= KNOWN_CHAINS:
            self._fits.clear()
            self._skips.clear()
        fit = self._fits[id(chain)] = _Fit(chain, any(step.when is not None for step in chain.steps))
        return fit

    def _skips_of(self, fit: _Fit, job: NewJob) -> Skips:
        needs = job.needs or Needs(job.tokens, job.tokens, job.max_output_tokens)
        key = (id(fit.chain), needs)
        if key not in self._skips:
            if len(self._skips) >= KNOWN_NEEDS:
                self._skips.clear()
            self._skips[key] = self._ask(fit.chain, needs)
        skips = self._skips[key]
        if job.needs is None and not skips and not fit.conditional:
            self._widen(fit, needs)
        return skips

    def _widen(self, fit: _Fit, needs: Needs) -> None:
        """A request with fewer tokens than one that fits, fits as well."""
        tokens, output = max(needs.input_tokens, fit.input_tokens), max(needs.output_tokens, fit.output_tokens)
        if not self._ask(fit.chain, Needs(tokens, tokens, output)):
            fit.input_tokens, fit.output_tokens = tokens, output

    def _ask(self, chain: Chain, needs: Needs) -> Skips:
        whys: Sequence[tuple[int, str]] = [
            (index, why.topic)
            for index, step in enumerate(chain.steps)
            if (why := self._suitability.why_not(chain, step, needs)) is not None
        ]
        return tuple(whys)
