"""Notes for the user on how an input was read, collected while reading."""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from understudy.models.routing.options import ROUTE_WORDS
from understudy.producer.figures import counted

FIELDS_NAMED = 5
MOST_FIELDS = 1_000

PARAMETERS = frozenset(
    """
    prompt system audio extra_body frequency_penalty function_call functions include_reasoning logit_bias logprobs
    max_completion_tokens max_tokens metadata modalities model n parallel_tool_calls prediction presence_penalty
    prompt_cache_key prompt_cache_retention reasoning reasoning_effort response_format safety_identifier seed
    service_tier stop store stream stream_options temperature thinking tool_choice tools top_logprobs top_p user
    verbosity web_search_options chat_template_kwargs enable_thinking guided_json ignore_eos keep_alive min_p
    min_tokens models options plugins provider random_seed repetition_penalty safe_prompt search_parameters
    structured_outputs think top_a top_k transforms usage
    """.split()
)
"""Fields allowed next to a prompt: OpenAI's parameters, and those documented by providers with the same protocol."""

KNOWN = PARAMETERS.union(ROUTE_WORDS)


@dataclass(slots=True)
class InputNotes:
    """Notes on the input `name`. `wrong_line`: the first line that is not UTF-8, if it is read as Windows-1252."""

    name: str
    wrong_line: int | None = None
    empty_rows: int = 0
    blank_rows: int = 0
    first_blank: int = 0
    beside: Counter[str] = field(default_factory=Counter)

    def blank_row(self, line: int) -> None:
        """Note a row with an empty cell in a column of the prompt."""
        self.blank_rows += 1
        self.first_blank = self.first_blank or line

    def beside_prompt(self, names: Set[str]) -> None:
        """Note the fields of a line that has a prompt."""
        unknown = names - KNOWN
        if unknown and len(self.beside) < MOST_FIELDS:
            self.beside.update(name[:80] for name in sorted(unknown))

    @property
    def sentences(self) -> list[str]:
        said = []
        if self.wrong_line is not None:
            said.append(f"{self.name} is not UTF-8 (line {self.wrong_line:,}); reading it as Windows-1252")
        if self.empty_rows:
            said.append(f"skipped {counted(self.empty_rows, 'empty row')}")
        if self.blank_rows:
            rows = f"{counted(self.blank_rows, 'row')} {'has' if self.blank_rows == 1 else 'have'}"
            said.append(f"{rows} an empty cell in a column of the prompt, the first on line {self.first_blank:,}")
        for name, lines in self.beside.most_common(FIELDS_NAMED):
            have = f"{counted(lines, 'line')} {'has' if lines == 1 else 'have'}"
            said.append(f"{have} a field '{name}', which is sent as a parameter; providers reject unknown parameters")
        return said
