"""All knowledge of provider errors.

classify            an HTTP response without an answer
classify_success    overloads and outages reported inside a 2xx
classify_exception  a call without a response
read_limits         limits of the account advertised in a response's headers

tables      all evidence in order: which codes, phrases and statuses mean which class (`about_*` contain the rows)
evidence    one row, and what it is matched against
echoes      what a provider repeats of the request, which is not evidence
complaint   extracts codes, types and sentences from any provider's error body
numbers     requests that can never start: more than the limit itself, or a limit of zero
hints       how long a response asks us to wait
masking     keeps keys out of everything that is stored
"""

from understudy.worker.failures.classify import classify
from understudy.worker.failures.exceptions import classify_exception
from understudy.worker.failures.in_success import classify_success
from understudy.worker.failures.limits import LimitSignals, read_limits

__all__ = ["LimitSignals", "classify", "classify_exception", "classify_success", "read_limits"]
