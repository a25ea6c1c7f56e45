"""The tests bite: each known way to break a promise is built in, in a copy, and a test has to fail."""

from pathlib import Path

import pytest

from tests.support.proof import Tally
from tests.support.sabotage import Saboteur, Workshop
from tests.support.saboteurs import SABOTEURS, SAMPLE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "saboteur" in metafunc.fixturenames:
        chosen = [one for one in SABOTEURS if metafunc.config.getoption("--long") or one.name in SAMPLE]
        metafunc.parametrize("saboteur", chosen, ids=str)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.fault("saboteurs", "never wrong")
def test_a_saboteur_is_caught_by_the_tests_of_the_promise_that_it_breaks(
    workshop: Workshop, saboteur: Saboteur, tally: Tally
) -> None:
    before = workshop.run(saboteur.tests)
    assert before.passed, f"without any sabotage:\n{before.output[-3000:]}"
    after = workshop.sabotage(saboteur)
    tally.count(held=after.caught)
    assert after.caught, f"{saboteur.name}: nobody noticed\n{after.output[-3000:]}"


@pytest.mark.timeout(30)
def test_every_saboteur_finds_the_text_that_it_changes_and_the_tests_that_must_fail() -> None:
    root = Path(__file__).parents[2]
    lost = [
        (saboteur.name, file)
        for saboteur in SABOTEURS
        for file, text, _ in saboteur.changes
        if (root / "appliance" / file).read_text().count(text) != 1
    ]
    assert lost == []
    tests = {test.partition("::")[0] for saboteur in SABOTEURS for test in saboteur.tests}
    assert [test for test in tests if not (root / "tests" / test).is_file()] == []
    assert len(SABOTEURS) >= 12
