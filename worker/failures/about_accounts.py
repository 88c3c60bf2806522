"""Evidence about the account: its region, permissions, key and money."""

from understudy.models.failure import FailureClass
from understudy.worker.failures.evidence import CLIENT_ERRORS, row

REFUSALS = frozenset({400, 401, 403, 404, 405, 410, 422})
"""Statuses about this request or this credential, not about load."""

REGION = (
    row(
        FailureClass.REGION,
        r"location is not supported",
        r"country, region,? (?:or|and) territory",
        r"unsupported (?:countr|region|location)",
        r"not (?:available|supported|allowed|served|accessible) (?:in|from) (?:your|this|the user'?s) (?:current )?"
        r"(?:country|region|location|territory|area)",
        r"(?:country|region|territory) (?:is )?not supported",
        r"not available in (?:your )?(?:country|region) due to",
        codes="unsupported_country_region_territory unsupported_country unsupported_region region_not_supported"
        " location_not_supported geo_blocked",
    ),
    row(FailureClass.REGION, r"^request not allowed", statuses={403}, speakers="anthropic"),
    row(FailureClass.REGION, statuses={451}),
)

SPEAK_OF_MONEY = (CLIENT_ERRORS - {404, 408, 413, 422}) | {500}
MONEY_PHRASES = (
    r"(?:no|enough|out of|any|more|all available|purchase|buy) (?:prepaid |more |api )?credits?\b(?! were)",
    r"spend(?:ing)?[ -](?:limit|cap)",
    r"specified (?:workspace )?api usage limits",
    r"reached (?:your|its|the) (?:monthly|api|account|organization|plan) usage limit",
    r"billing (?:hard )?limit",
    r"check your (?:plan and )?billing details (?:on|at) our|check your billing",
    r"(?:requires?|enable|enabling) billing",
    r"billing (?:account|to be enabled|is (?:not|disabled))",
    r"payment required",
    r"(?:invalid|no valid|missing).{0,3}payment[ _](?:instrument|method)",
    r"past due|unpaid|overdue|failure to pay|arrears?\b|arrearage|dunning",
    r"key limit exceeded",
    r"inactive subscription",
    r"monthly (?:included )?(?:credit|budget|spend|quota|token quota|allowance)",
    r"budget (?:has been |is )?exceeded|exceeded (?:your |the |its )?budget",
    r"limited to \d+ api calls / month",
)

QUOTA = (
    # Calls the request invalid, but means the account.
    row(
        FailureClass.QUOTA,
        r"^your credit balance is too low",
        r"^you have reached your specified (?:workspace )?api usage limits",
        statuses={400},
        speakers="anthropic",
        sure=True,
        always=True,
    ),
    row(FailureClass.RATE_LIMIT, statuses={402}, waits=True),
    # Messages of OpenRouter, Together and Google that mention money and mean a rate.
    row(
        FailureClass.RATE_LIMIT,
        r"free-models-per-(?:day|min)",
        r"rate limit exceeded: (?:free|limit)",
        r"you have been rate limited",
        r"temporarily rate-limited upstream",
        r"out of call volume quota",
        statuses={402, 403, 429},
    ),
    row(
        FailureClass.QUOTA,
        r"insufficient (?:account )?(?:balance|credit|fund|quota)",
        r"(?:balance|credits?|funds) (?:is|are) (?:too low|insufficient|depleted|exhausted|negative|used up)",
        r"credits? (?:balance )?(?:has |have )?(?:been )?(?:exhausted|depleted|expired)",
        r"余额不足|欠费|充值",
        codes="credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded"
        " organization_usage_limit_exceeded enforced_spend_limit_reached contract_spend_limit_reached"
        " billing_hard_limit_reached billing_not_active billing_error billing_disabled payment_required"
        " insufficient_balance insufficient_credits insufficient_funds arrearage budget_exceeded"
        " exceeded_current_quota_error invalid_payment_instrument personal-team-blocked:spending-limit"
        " insufficient_user_quota insufficient_quota_error quota_not_enough",
        statuses=SPEAK_OF_MONEY,
        sure=True,
    ),
    row(FailureClass.QUOTA, r"can only afford", statuses=SPEAK_OF_MONEY),  # a smaller request may be affordable
    row(FailureClass.QUOTA, *MONEY_PHRASES, statuses={402, 403, 412, 429}, sure=True),
    row(FailureClass.QUOTA, *MONEY_PHRASES, statuses=SPEAK_OF_MONEY),
    row(
        FailureClass.RATE_LIMIT,
        r"ai\.google\.dev/gemini-api/docs/rate-limits",
        r"generativelanguage\.googleapis\.com/",
        r"quota exceeded for (?:metric|quota metric|aiplatform)",
        codes="resource_exhausted",
        statuses={429, 403, 400},
    ),
    row(FailureClass.RATE_LIMIT, r"exceeded your current quota", statuses={429}, speakers="gemini vertex"),
    row(FailureClass.QUOTA, r"exceeded your current quota", codes="insufficient_quota", sure=True),
    row(FailureClass.QUOTA, statuses={402}, sure=True),
    row(FailureClass.QUOTA, statuses={412}, speakers="fireworks"),
)

CREDENTIAL = (
    row(
        FailureClass.CREDENTIAL,
        r"^this organization has been disabled",
        statuses={400},
        speakers="anthropic",
        sure=True,
        always=True,
    ),
    row(
        FailureClass.CREDENTIAL,
        r"^api key (?:not valid|not found|expired|is invalid)",
        statuses={400},
        speakers="gemini vertex",
        sure=True,
        always=True,
    ),
    row(FailureClass.CREDENTIAL, statuses={401}, sure=True),
    row(
        FailureClass.CREDENTIAL,
        r"api[ _-]?key.{0,40}\b(?:not valid|invalid|is (?:in)?valid|expired|not found|leaked|disabled|revoked|blocked"
        r"|missing|required|suspended|deleted|inactive)",
        r"(?:incorrect|invalid|missing|no|wrong|expired|unknown|provide a valid) (?:x-)?api[ _-]?key",
        r"(?:access|bearer|auth\w*|security|id) token.{0,40}(?:invalid|expired|missing|revoked|malformed)",
        r"(?:invalid|expired|missing) (?:access |bearer |auth\w* |security )?token\b",
        r"(?:account|organization|team|consumer '[^']*')(?: \S+)? (?:has been|is|was) (?:\w+ )?"
        r"(?:disabled|deactivated|suspended|restricted|banned|blocked|terminated)",
        r"request signature we calculated|signature (?:expired|not yet current|does not match)",
        codes="invalid_api_key api_key_invalid incorrect_api_key unauthenticated account_deactivated account_suspended"
        " organization_disabled organization_restricted"
        " consumer_suspended api_key_service_blocked api_key_http_referrer_blocked api_key_ip_address_blocked"
        " api_key_expired service_disabled access_token_expired credentials_missing"
        " unrecognizedclientexception expiredtokenexception expiredtoken invalidsignatureexception"
        " incompletesignature incompletesignatureexception missingauthenticationtoken"
        " missingauthenticationtokenexception invalidclienttokenid optinrequired ip_not_authorized"
        " access_terminated_error invalid_authentication_error invalid_authentication",
        statuses={400, 403, 404},
        sure=True,
    ),
    # May just as well be about an image, a file or a tool of this one request.
    row(
        FailureClass.CREDENTIAL,
        r"invalid (?:authentication|credential|authorization)",
        r"(?:authentication|authorization) (?:error|failed|failure|required)",
        r"(?:could not|unable to|failed to) authenticate",
        r"disabled in this account",
        r"not authorized to (?:perform|access|invoke|use)",
        r"is not authorized|unauthorized|login fail",
        r"^operation not allowed",
        r"caller does not have permission",
        codes="authentication_error unauthorized permission_error permission_denied auth_error invalid_token",
        statuses={400, 403, 404},
    ),
    row(FailureClass.CREDENTIAL, statuses={403}),
)

MISSING_PHRASES = (
    r"no endpoints (?:found|available)",
    r"no (?:allowed )?providers? (?:are |is )?available",
    r"is not a valid model",
    r"\bmodels?\b(?! returned).{0,160}(?<!may )\bnot exist|\bmodels?\b.{0,160}doesn't exist",
    r"\bmodels?\b(?! returned).{0,160}\bnot (?:be |been )?(?:found|available|deployed|loaded)\b",
    r"\bmodels?\b.{0,160}(?:decommissioned|deprecated|retired|discontinued|sunset|shut ?down|unavailable"
    r"|end of (?:its )?life|no longer (?:available|supported|accessible)|marked by provider as legacy)",
    r"(?:unknown|invalid|unsupported|no such|unrecognized) (?:foundation )?model\b(?! (?:output|response|param))",
    r"(?:no|multiple) models? (?:are |is )?(?:currently )?loaded",
    r"failed to load model|model (?:is |was )?unloaded|model loading failed",
    r"(?:don't|do not|does not|doesn't|not|without|denied|no) (?:have |allowed )?(?:access|permission) (?:to|for) "
    r"(?:the |this |that |requested )?model",
    r"model access is denied|access to (?:the |this )?model.{0,80}(?:denied|not (?:allowed|available))",
    r"(?:must be|not) verified to use",
    r"not allowed to (?:sample|generate|use)\b.{0,40}\bmodel|not allowed to sample from",
    r"model requires a (?:\w+ )?(?:subscription|plan|licen[cs]e)",
    r"model use case details",
    r"on-demand throughput",
    r"model (?:identifier|id) is (?:invalid|not)",
    r"could not resolve the foundation model",
    r"non-serverless model",
    r"does not work with the specified model",
    r"not a chat model|is not supported for (?:generatecontent|chat)|does not support (?:chat|the chat|converse)",
    r"deployment.{0,60}(?:does not|doesn't) exist|no deployment",
    r"模型不存在",
)

MODEL_MISSING = (
    row(
        FailureClass.MODEL_MISSING,
        codes="model_not_found deploymentnotfound model_decommissioned invalid_model model_not_available"
        " model_deprecated modeldeprecated model_not_supported unknown_model unavailable_model modelnotfound"
        " modelnotfounderror resourcenotfoundexception operationnotsupported model_not_allowed model_access_denied"
        " model_unavailable invalidendpointormodel.notfound key_model_access_denied team_model_access_denied 1500",
        statuses=REFUSALS | {412, 424, 500},
        sure=True,
    ),
    row(FailureClass.MODEL_MISSING, *MISSING_PHRASES, statuses={404, 410}, sure=True),
    # The model may merely lack what this one request needs.
    row(FailureClass.MODEL_MISSING, *MISSING_PHRASES, statuses=REFUSALS | {412, 424, 500}),
)

NOTHING_HERE = (
    # Whatever is missing at this address is missing for every request; the next step may have it.
    row(FailureClass.MODEL_MISSING, statuses={404, 410}),
)
