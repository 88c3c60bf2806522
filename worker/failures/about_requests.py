"""Evidence about the request: its content and size, amounts that no waiting allows, pages that no provider sent."""

import re

from understudy.models.failure import FailureClass
from understudy.worker.failures.evidence import CLIENT_ERRORS, row

PAGES = (
    row(FailureClass.TOO_LARGE, r"(?:header|cookie|entity|payload|uri).{0,20} too (?:large|long)", page=True),
    # A page of a proxy or firewall, not of the provider: such a 403 says nothing about the key.
    row(FailureClass.BAD_RESPONSE, page=True, statuses=CLIENT_ERRORS - {401, 407, 408, 413, 414, 429, 431, 451, 499}),
)

MODEL_SLIP = (
    # The model's own output was invalid, and the provider reports it with the status of an invalid request.
    row(
        FailureClass.BAD_RESPONSE,
        r"failed to generate (?:valid )?json",
        r"failed to call a function",
        r"tool call validation failed",
        r"tool choice is \w+, but (?:the )?model (?:did not|didn't|called)",
        r"\b(?:model|llm)(?:'s)? (?:has )?(?:generated|produced|returned|wrote|gave|output)"
        r" (?:an? )?(?:invalid|malformed|incomplete|unparsable|output that)",
        r"\b(?:model|llm)(?:'s)? (?:output|response|answer|generation|tool call)s? (?:is|was|could|did|does)"
        r" (?:not|invalid|malformed)",
        r"error parsing tool call",
        codes="json_validate_failed tool_use_failed output_parse_failed failed_generation malformed_function_call"
        " invalid_model_output invalid_tool_call_generated",
        statuses={400, 422, 424, 500},
    ),
)

CONTEXT_LENGTH = (
    row(
        FailureClass.CONTEXT_LENGTH,
        r"(?:required|not (?:yet )?available|not enabled|not supported) for (?:this |your )?long context",
        r"long context (?:beta|requests?|window)\b.{0,60}(?:not (?:yet )?available|not enabled|requires?|required)",
        statuses={400, 403, 429},
        speakers="anthropic",
    ),
    row(
        FailureClass.CONTEXT_LENGTH,
        r"(?:maximum|max|model'?s?|available|total|supported|allowed|input) context[ -](?:length|window|size|limit)",
        r"context[ -](?:length|window|size|limit)\b.{0,40}(?:exceed|overflow|too (?:small|short)|reached|is \d)",
        r"(?:exceed|longer than|larger than|greater than|too (?:long|large|big) for|outside|overflow|beyond)\w*"
        r".{0,60}\bcontext[ -](?:length|window|size|limit)",
        r"(?:prompt|input|inputs|messages|conversation|text)(?: is| are|'s| length is)? too (?:long|large for)",
        r"too large for model with \d+ maximum",
        r"(?:input|prompt|request|message)s?(?: token)?s? (?:token )?(?:count|length|tokens?|size)\b.{0,60}"
        r"(?:exceeds?|exceeded|is (?:longer|larger|greater|more) than|over) (?:the |model |its |of )?.{0,30}"
        r"(?:maximum|max\b|limit|\d)",
        r"exceeds? the maximum number of (?:input )?tokens",
        r"input token count is \d+ but",
        r"maximum prompt length",
        r"too many (?:input|prompt|total) tokens",
        r"max(?:_\w+)?_tokens`? must be (?:at least|greater than or equal to) [01],? (?:but )?got -",
        r"`?inputs`? tokens \+ `?max_new_tokens`? must be",
        r"(?:sum|total) of (?:the )?(?:prompt|input)(?: length| tokens)? (?:and|\+) `?max_",
        r"(?:prompt|input)(?: length| tokens)? (?:and|\+) `?max_tokens`? exceed",
        r"reduce (?:the )?(?:length|size|number of tokens) (?:of|in) (?:the |your )?(?:messages|prompt|input|convers)",
        r"shorten your (?:prompt|input|messages)",
        r"inputs?`? must have (?:less|fewer) than \d+ tokens",
        r"tokens in the (?:prompt|input|request)\b.{0,20} (?:cannot|can't|must not) exceed",
        r"reached (?:the )?context (?:length|limit|window)",
        r"\bn_(?:keep|ctx|ctx_slot)\b",
        r"longer than the maximum (?:model|input|sequence) length",
        r"exceed(?:s|ed)? (?:the )?model(?:'s)? (?:token|maximum (?:input|sequence)|input) (?:limit|length)",
        r"range of input length should be",
        r"too many total text bytes",
        r"exceeds? max(?:imum)? (?:prompt|input|sequence) (?:length|tokens)",
        codes="context_length_exceeded exceed_context_size_error context_window_exceeded prompt_too_long"
        " model_context_window_exceeded input_too_long context_limit_exceeded contextwindowexceedederror 3051",
        statuses={400, 403, 404, 413, 422, 500, 503},
    ),
)

TOO_LARGE = (
    row(
        FailureClass.TOO_LARGE,
        r"request(?: body| payload)? (?:is )?too large",
        r"(?:payload|body|entity|content)(?: is)? too large",
        r"(?:request|payload|body|file|image|content)(?: payload)?(?: size)? (?:\w+ )?exceeds? (?:the )?(?:\w+ )?"
        r"(?:size|limit|\d+(?:\.\d+)? ?(?:mb|bytes|kb))",
        r"exceeds? the maximum (?:allowed )?(?:request |body |payload )?size",
        r"string too long\..{0,60}maximum length \d{6,}",
        codes="request_too_large payload_too_large requestentitytoolargeexception"
        " tokens_limit_reached requesttoolarge content_too_large",
        statuses={400, 413, 422, 429, 500},
    ),
    row(FailureClass.TOO_LARGE, statuses={413, 414, 431}),
)

CONTENT_FILTER = (
    row(
        FailureClass.CONTENT_FILTER,
        r"content (?:filter|management polic|moderation|polic|violat|exists risk|risk)",
        r"flagged (?:as|for|by|because)",
        r"(?:was|were|been) flagged",
        r"violat\w+ .{0,40}(?:usage|content|safety|use|responsible ai|community) ?(?:polic|guideline|setting)",
        r"(?:safety|moderation) (?:system|filter|polic|check|guard)",
        r"limited access to this content for safety",
        r"considered (?:as )?(?:high[ -]risk|unsafe|inappropriate|harmful)",
        r"inappropriate content",
        r"(?:input|output|new|text)[ _]?sensitive",
        r"contains? (?:sensitive|unsafe|prohibited|harmful)",
        r"(?:prompt|response|output|input|content) (?:was |has been |is )?(?:blocked|filtered)",
        r"jailbreak",
        r"guardrail (?:intervened|blocked)",
        r"不安全|敏感内容|违规",
        codes="content_filter content_policy_violation responsibleaipolicyviolation content_filtered contentfilter"
        " content_moderation moderation_blocked data_inspection_failed datainspectionfailed prohibited_content"
        " image_safety blocklist spii model_armor sensitive_content content_violation cyber_policy_violation"
        " moderation_error safety_check_failed",
        statuses=(CLIENT_ERRORS - {401, 402, 404, 413, 429}) | {500},
    ),
)

REFUSE_RATES = frozenset({403, 413, 429})
"""The statuses of rate limit errors. What the numbers in one say is stronger than any word or status."""

_AMOUNT = r"\W{0,3}(?:is |of |to )?(\d[\d,_]*)(?!\d|[.:]\d)"
_LIMIT = rf"\b(?:limit|maximum){_AMOUNT}"
_REQUESTED = rf"\brequested{_AMOUNT}"
_ZERO = re.compile(r"\blimit\W{0,3}(?:is |of )?0(?![\d.,:]\d|\d)")
_IN_ONE_SENTENCE = r"[^.;\n]{0,60}?"
_LIMIT_FIRST = re.compile(_LIMIT + _IN_ONE_SENTENCE + _REQUESTED)
_REQUESTED_FIRST = re.compile(_REQUESTED + _IN_ONE_SENTENCE + _LIMIT)


def what_never_starts(text: str) -> FailureClass | None:
    """The class of a rejection that no waiting heals: a limit of zero, which means that the account does not have
    the model at all, or a single request above the limit. `text` is in lower case."""
    if _ZERO.search(text):
        return FailureClass.MODEL_MISSING
    pairs = [(limit, requested) for limit, requested in _LIMIT_FIRST.findall(text)]
    pairs += [(limit, requested) for requested, limit in _REQUESTED_FIRST.findall(text)]
    if any(_number(requested) > _number(limit) for limit, requested in pairs):
        return FailureClass.TOO_LARGE
    return None


def _number(digits: str) -> int:
    return int(digits.replace(",", "").replace("_", "")[:18])
