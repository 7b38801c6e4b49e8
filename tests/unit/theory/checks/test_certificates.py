from dataclasses import replace

from whimbrel.model.check import Result
from whimbrel.model.preflight import PlaceFacts
from whimbrel.model.tls import SERVER_FILES
from whimbrel.theory.checks.certificates import certificates

WHOLE = {name: PlaceFacts(f"/tls/{name}", "file", regions=("one",)) for name in SERVER_FILES}


def test_a_folder_with_every_file_passes() -> None:
    assert certificates(WHOLE, "/tls", "b").result is Result.PASS


def test_what_is_missing_is_named_with_its_folder_and_host() -> None:
    gone = replace(WHOLE["server-key.pem"], kind="missing")
    check = certificates({**WHOLE, "server-key.pem": gone}, "/tls", "b")
    assert check.result is Result.FAIL
    assert check.detail == "There is no server-key.pem in /tls on b."


def test_what_cannot_be_read_fails_too() -> None:
    for closed in (
        replace(WHOLE["server-key.pem"], regions=()),
        replace(WHOLE["server-key.pem"], kind="unreadable"),
    ):
        check = certificates({**WHOLE, "server-key.pem": closed}, "/tls", "b")
        assert check.result is Result.FAIL
        assert "cannot be read" in check.detail
