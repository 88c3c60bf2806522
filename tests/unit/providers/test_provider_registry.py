"""Which adapter speaks which protocol."""

from typing import get_args

import pytest

from understudy.models.config.provider_settings import Provider
from understudy.worker.providers.registry import ADAPTERS, adapter_for


@pytest.mark.parametrize("protocol", ADAPTERS)
def test_each_protocol_has_an_adapter_that_knows_its_own_name(protocol: str) -> None:
    assert adapter_for(protocol).protocol == protocol


def test_every_kind_that_can_be_configured_has_an_adapter() -> None:
    kinds = get_args(get_args(Provider.model_fields["kind"].annotation)[0])
    assert set(kinds) == set(ADAPTERS)


def test_an_unknown_protocol_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="openai, anthropic, gemini, bedrock"):
        adapter_for("cobol")
