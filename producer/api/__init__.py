"""The HTTP API: OpenAI's files and batches, single jobs, chat completions, webhook endpoints, health, metrics.

| module | about |
|---|---|
| app | the application and its routers, listed in one place; the OpenAPI document |
| middleware | what wraps the application: the log, metrics and headers of every request |
| context | state shared by all requests: stores, queue, settings |
| errors | every error as OpenAI's error object |
| bodies | reading a JSON body: its size, type and shape |
| access/auth, access/keyring | the caller and their permissions; the keys that callers present |
| access/admission, access/backlog | whether there is capacity for more work; the cached backlog |
| access/administration | tenants, keys, audit and the state of the providers |
| completions, synchronous | chat completions and embeddings; the connection kept open meanwhile |
| jobs/submission, jobs/responses | single jobs: from a body to the ledger; and as they are answered |
| files/routes, files/upload | OpenAI's files; parsing of multipart bodies while they arrive |
| files/blobs | storage of uploaded bytes; cleanup after deleted files |
| health, monitoring | liveness, readiness and metrics; what they read, cached |
"""
