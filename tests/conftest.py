import pytest

from demo_world import small_params, synthesize_to


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Give the root of a small demo world; tests that change it copy it."""
    root = tmp_path_factory.mktemp("demo")
    synthesize_to(root, small_params())
    return root
