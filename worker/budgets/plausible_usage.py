"""Whether a provider's token counts can be true. Pure.

They are priced, charged to budgets, and train the limiter and the estimates, so that one absurd count would harm
everyone. A count is certainly false if neither the request, nor the answer, nor the model is that large.
"""

from understudy.models.config.catalog import window
from understudy.worker.providers.base import Call, Usage, WireRequest

SURE_TOKENS = 100_000
"""An excess over what was sent and answered that is not questioned: images, reasoning, a provider's own system
prompt."""

LARGEST_WINDOW = 2**21
"""For models with an unknown context window."""

LARGEST_OUTPUT = 2**19
"""Tokens of one answer, hidden reasoning included, in addition to the visible ones."""

TURNS = 8
"""A provider that runs its own tools reads the preceding context again with each of them, and counts it again."""

RUNS_TOOLS = ("tools", "web_search_options", "plugins", "mcp_servers", "search_parameters")
MOST_CHOICES = 128


def is_believable(usage: Usage, call: Call, request: WireRequest, answer_bytes: int) -> bool:
    """`answer_bytes`: the size of the answer on the wire. No token is shorter than a byte."""
    most_input = max(usage.input_tokens, usage.cached_tokens + usage.cache_write_tokens)
    most_output = max(usage.output_tokens, usage.reasoning_tokens)
    if most_input <= len(request.content) + SURE_TOKENS and most_output <= answer_bytes + SURE_TOKENS:
        return True
    turns = TURNS if any(call.body.get(name) for name in RUNS_TOOLS) else 1
    context = (window(call.model) or LARGEST_WINDOW) * turns
    answers = call.body.get("n")
    choices = min(answers, MOST_CHOICES) if isinstance(answers, int) else 1
    return most_input <= max(len(request.content), context) and (
        most_output <= answer_bytes + min(context, LARGEST_OUTPUT * turns) * choices
    )
