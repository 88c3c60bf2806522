"""All knowledge of provider errors.

classify            an HTTP response without an answer
classify_success    overloads and outages reported inside a 2xx
classify_exception  a call without a response
read_limits         limits of the account advertised in a response's headers

about_*     all evidence: which codes, phrases, amounts and statuses mean which class; its order is in `classify`
evidence    one row, and what it is matched against
echoes      what a provider repeats of the request, which is not evidence
complaint   extracts codes, types and sentences from any provider's error body
retry_after how long a response asks us to wait
masking     keeps keys out of everything that is stored
"""

from understudy.worker.failures.advertised_limits import LimitSignals, read_limits
from understudy.worker.failures.classify import classify, classify_success
from understudy.worker.failures.transport_errors import classify_exception

__all__ = ["LimitSignals", "classify", "classify_exception", "classify_success", "read_limits"]
