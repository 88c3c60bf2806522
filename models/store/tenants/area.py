"""`store.tenants`."""

from understudy.models.store.tenants.access import Access
from understudy.models.store.tenants.usage import Usage


class Tenants(Access, Usage):
    """Keys, limits and usage of tenants."""
