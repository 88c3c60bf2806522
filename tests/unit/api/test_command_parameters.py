"""What `--max-tokens`, `--temperature` and `--param` mean."""

from pathlib import Path

import pytest
from typer import BadParameter

from understudy.producer.cli.requests import RequestOptions


def test_values_are_json_where_they_can_be_and_text_otherwise(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "json_object"}')
    pairs = ["seed=7", "user=ada", 'stop=["a=b"]', f"response_format=@{schema}", "max_tokens=5"]
    assert RequestOptions(max_tokens=80, param=pairs).params() == {
        "seed": 7,
        "user": "ada",
        "stop": ["a=b"],
        "response_format": {"type": "json_object"},
        "max_tokens": 80,
    }
    assert RequestOptions(temperature=0.0).params() == {"temperature": 0.0}


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("seed", "must be NAME=VALUE"),
        ("=7", "must be NAME=VALUE"),
        ("model=lead/large", "cannot set 'model'"),
        ("messages=[]", "cannot set 'messages'"),
        ("stream=true", "cannot set 'stream'"),
        ("patience_s=3", "cannot set 'patience_s'"),
    ],
)
def test_what_is_not_a_parameter_is_refused(pair: str, said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        RequestOptions(param=[pair]).params()


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{oops")
    with pytest.raises(BadParameter, match=r"schema\.json is not valid JSON"):
        RequestOptions(param=[f"response_format=@{tmp_path / 'schema.json'}"]).params()
