"""All knowledge of provider errors.

classify            an HTTP response that is no answer
classify_success    load and outages that are told inside a 2xx
classify_exception  a call that got no response
read_limits         what a response's headers say about the account's limits

tables      all evidence in order: which codes, phrases and statuses mean which class (`about_*` hold the rows)
evidence    what one row is, and what it is held against
echoes      what a provider repeats of the request, which is evidence of nothing
complaint   reads codes, types and sentences out of any provider's error body
numbers     what can never start: more than the limit itself, a limit of zero
hints       how long a response asks us to wait
masking     keeps keys out of everything that is stored
"""

from understudy.worker.failures.classify import classify
from understudy.worker.failures.exceptions import classify_exception
from understudy.worker.failures.in_success import classify_success
from understudy.worker.failures.limits import LimitSignals, read_limits

__all__ = ["LimitSignals", "classify", "classify_exception", "classify_success", "read_limits"]
