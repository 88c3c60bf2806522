"""All knowledge of provider errors.

classify            an HTTP response that is no answer
classify_exception  a call that got no response
read_limits         what a response's headers say about the account's limits

tables      all evidence in order: which codes, phrases and statuses mean which class (`about_*` hold the rows)
evidence    what one row is, and what it is held against
complaint   reads codes, types and sentences out of any provider's error body
hints       how long a response asks us to wait
masking     keeps keys out of everything that is stored
"""

from worker.failures.classify import classify
from worker.failures.exceptions import classify_exception
from worker.failures.limits import LimitSignals, read_limits

__all__ = ["LimitSignals", "classify", "classify_exception", "read_limits"]
