"""Jobs, batches, provider calls, providers and webhooks as JSON: one shape for HTTP, `--json` and webhooks.

Each shape is a TypedDict next to the function that builds it. mypy checks one against the other, the OpenAPI document
contains it as a schema, and responses are not validated again.
"""
