"""What callers see of jobs, batches, provider calls, providers and webhooks: one shape for HTTP, `--json` and webhooks.

Each shape is a TypedDict beside the function that builds it: mypy holds the one to the other, the OpenAPI document has
it as a schema, and nothing is validated when it is answered.
"""
