"""Workers elsewhere must run what the driver runs."""

import importlib.metadata
import platform

import pytest

from pipeline.workers.installation import installation, require_same_installation
from storage_schemas.format.errors import SettingError


def test_an_installation_is_versions_without_builds_and_a_digest_of_the_code() -> None:
    found = installation()
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch").split("+")[0]
    assert len(found["stillhouse"]) == 16
    require_same_installation(found, installation(), "10.0.0.3")


def test_every_difference_is_named() -> None:
    expected = {"python": "3.11.2", "stillhouse": "0a", "torch": "2.8.0", "transformers": "5.0.0"}
    with pytest.raises(SettingError) as caught:
        require_same_installation(expected, expected | {"stillhouse": "0b", "transformers": ""}, "10.0.0.3")
    assert str(caught.value) == (
        "worker cannot be used:\n"
        "  stillhouse on 10.0.0.3: is 0b, the driver has 0a (install the same on every node; docs/cluster.md)\n"
        "  transformers on 10.0.0.3: is not installed, the driver has 5.0.0 "
        "(install the same on every node; docs/cluster.md)"
    )
