import pytest

from whimbrel.model.check import Check, Result, failed, obstacles, passed, warned, warnings


@pytest.mark.parametrize("result", [Result.WARN, Result.FAIL])
def test_what_does_not_pass_says_what_mends_it(result: Result) -> None:
    with pytest.raises(ValueError, match="no remedy"):
        Check("memory", result, "too little")


def test_errors_and_warnings_are_apart() -> None:
    checks = [passed("a", "good"), warned("b", "odd", "look"), failed("c", "bad", "mend")]
    assert [check.name for check in obstacles(checks)] == ["c"]
    assert [check.name for check in warnings(checks)] == ["b"]
