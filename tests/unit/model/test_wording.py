from whimbrel.model.wording import listed, verb


def test_names_are_listed_as_in_a_sentence_each_once() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == listed(["a", "a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(iter(["a", "b", "a", "c"])) == "a, b and c"


def test_the_verb_goes_with_their_number() -> None:
    assert verb(["a", "a"], "is", "are") == "is"
    assert verb(["a", "b"], "is", "are") == "are"
