"""The test lint, on one small example of each thing it rejects."""

import pytest

from verify.lint import findings

BAD = {
    "def test_a():\n    x = 1\n": "asserts nothing",
    "async def test_a():\n    x = 1\n": "asserts nothing",
    "def test_a():\n    check_something(1)\n": "asserts nothing",
    "def test_a():\n    failing(1)\n": "asserts nothing",
    "def test_a():\n    x = 1\n    x == 2\n    assert x\n": "nobody reads",
    "def test_a():\n    x and y\n    assert x\n": "nobody reads",
    "def test_a():\n    not x\n    assert x\n": "nobody reads",
    "def test_a():\n    np.allclose(x, y)\n    assert x\n": "nobody reads",
    "def test_a():\n    isclose(x, y)[0]\n    assert x\n": "nobody reads",
    "def test_a():\n    (x == y).all()\n    assert x\n": "nobody reads",
    "def test_a():\n    np.isclose(x, y).T[0].real\n    assert x\n": "nobody reads",
    "from pytest import mark\n@mark.skip\ndef test_a():\n    assert 1\n": "skip without a reason",
    "import pytest\ndef test_a():\n    pytest.skip('')\n    assert 1\n": "skip without a reason",
    "import pytest\n@pytest.mark.skip(reason=' ')\ndef test_a():\n    assert 1\n": "skip without a reason",
    "import pytest\n@pytest.mark.skipif(True, reason='')\ndef test_a():\n    assert 1\n": "skipif without a reason",
    "import pytest\n@pytest.mark.xfail(True)\ndef test_a():\n    assert 1\n": "xfail without a reason",
    "import pytest\n@pytest.mark.skip\ndef test_a():\n    assert 1\n": "skip without a reason",
    "import pytest\ndef test_a():\n    pytest.skip()\n    assert 1\n": "skip without a reason",
    "import pytest\n@pytest.mark.xfail()\ndef test_a():\n    assert 1\n": "xfail without a reason",
    "import pytest\n@pytest.mark.skipif(True)\ndef test_a():\n    assert 1\n": "skipif without a reason",
}
GOOD = [
    "def test_a():\n    assert 1\n",
    "import pytest\ndef test_a():\n    with pytest.raises(ValueError):\n        f()\n",
    "import pytest\n@pytest.mark.skip(reason='no data here')\ndef test_a():\n    assert 1\n",
    "import pytest\ndef test_a():\n    pytest.skip('no data here')\n    assert 1\n",
    "import pytest\n@pytest.mark.skipif(True, reason='no data')\ndef test_a():\n    assert 1\n",
    "def test_a():\n    assert_close(1, 1)\n",
    "async def test_a():\n    assert_close(1, 1)\n",
    "def test_a():\n    gradcheck(f, x)\n",
]


@pytest.mark.parametrize("source", BAD)
def test_bad_tests_are_found(source: str) -> None:
    assert [text for _, text in findings(source) if BAD[source] in text]


@pytest.mark.parametrize("source", GOOD)
def test_good_tests_pass(source: str) -> None:
    assert list(findings(source)) == []
