"""Scenario files: everything can be said, nothing wrong gets through, and every error helps."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel.errors import ConfigError
from whimbrel.lab.links import MAX_LINKS
from whimbrel.lab.scenario import (
    check,
    default_fill,
    default_scenario,
    load_scenario,
    parse_compression,
    parse_methods,
    scenario_from,
    scenario_toml,
)
from whimbrel.lab.scenario_check import GUEST_ROOM, MOST_LINKS, SMALLEST_GUEST
from whimbrel.model.method import CLASSIC, Codec, Compression, Method, PreparedMemory, Settings
from whimbrel.model.plan import Goal
from whimbrel.model.scenario import (
    AcceleratorChoice,
    Access,
    AutoSpec,
    GuestSpec,
    LinkSpec,
    Load,
    Pattern,
    Scenario,
)
from whimbrel.model.units import GIB, MIB, PAGE
from whimbrel.report.document import scenario_document

EXAMPLES = sorted((Path(__file__).parents[3] / "scenarios").glob("*.toml"))

WHOLE = """
name = "busy database"
repeats = 3
methods = ["qemu-default", "tcp", "multichannel", "compressed", "postcopy"]
downtime_limit = "200 ms"
timeout = "90 s"
bandwidth_limit = "100 MiB/s"
channels = 4
compression = "zlib:6"
xbzrle_cache = "64 MiB"
prepare_memory = true
prepare_threads = 3
free_page_hints = false
accelerator = "tcg"
kernel = "/boot/vmlinuz"
modules = "/lib/modules/6.1.0"
[auto]
goal = "least-traffic"
max_downtime = "250 ms"
deadline = "1 min"
cpu_budget = 1.5
postcopy = false
[link]
rate = "10 Gbit/s"
count = 2
[guest]
memory = "2 GiB"
vcpus = 2
[guest.redline]
fill = "1500 MiB"
pattern = "random"
hot = "200 MiB"
dirty_rate = "50 MiB/s"
access = "skewed"
touch = "64 B"
freed = "100 MiB"
"""


def test_every_key_arrives_where_it_belongs() -> None:
    load = Load(
        1500 * MIB, Pattern.RANDOM, 200 * MIB, 50.0 * MIB, Access.SKEWED, touch=64, freed=100 * MIB
    )
    assert scenario_from(tomllib.loads(WHOLE), "x.toml") == Scenario(
        name="busy database",
        repeats=3,
        methods=(*CLASSIC[:3], Method.COMPRESSED, Method.POSTCOPY),
        timeout=90.0,
        link=LinkSpec(1.25e9, 2),
        guest=GuestSpec(2 * GIB, 2, load),
        settings=Settings(
            channels=4,
            compression=Compression(Codec.ZLIB, 6),
            xbzrle_cache=64 * MIB,
            bandwidth_limit=100.0 * MIB,
            downtime_limit=0.2,
            prepared_memory=PreparedMemory(3),
            free_page_hints=False,
        ),
        auto=AutoSpec(Goal.LEAST_TRAFFIC, 0.25, 60.0, 1.5, postcopy=False),
        accelerator=AcceleratorChoice.TCG,
        kernel=Path("/boot/vmlinuz"),
        modules=Path("/lib/modules/6.1.0"),
    )


def test_an_empty_file_is_the_classic_comparison_by_the_files_name() -> None:
    assert scenario_from({}, "a/nightly.toml") == replace(
        default_scenario(quick=False), name="nightly"
    )


def test_the_words_for_nothing_mean_none() -> None:
    words = {"bandwidth_limit": "none", "prepare_memory": False, "link": {"rate": "unlimited"}}
    read = scenario_from(words, "x")
    assert read.settings.bandwidth_limit is None
    assert read.settings.prepared_memory is None
    assert read.link.rate is None
    assert (
        scenario_from({"auto": {"deadline": "none", "cpu_budget": "none"}}, "x").auto == AutoSpec()
    )


def test_all_stands_for_every_method() -> None:
    assert scenario_from({"methods": "all"}, "x").methods == tuple(Method)
    assert parse_methods("all", "--methods") == tuple(Method)
    assert parse_methods("tcp, rdma", "--methods") == (Method.TCP, Method.RDMA)


def test_memory_alone_is_enough_to_size_a_guest() -> None:
    for memory in ("128 MiB", "512 MiB", "2 GiB", "64 GiB"):
        guest = scenario_from({"guest": {"memory": memory}}, "x").guest
        assert 0 < guest.redline.fill <= guest.memory - GUEST_ROOM


def test_the_default_fill_of_the_classic_guest_is_the_models() -> None:
    assert default_fill(4 * GIB) == Load().fill


@pytest.mark.parametrize("quick", [True, False])
def test_default_scenarios_are_sound(quick: bool) -> None:
    scenario = default_scenario(quick=quick)
    check(scenario, "default")
    assert scenario.methods == CLASSIC
    assert scenario.guest.memory == (512 * MIB if quick else 4 * GIB)
    assert scenario.guest.redline.fill == (384 * MIB if quick else 3584 * MIB)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_scenario(path: Path) -> None:
    assert load_scenario(path).name


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


def wrong(mapping: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        scenario_from(mapping, "x.toml")
    return caught.value


def redline(**keys: object) -> dict[str, Any]:
    return {"guest": {"redline": keys}}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"repeats": 0}, "x.toml: repeats: must be at least 1, not 0."),
    ({"repeats": True}, "x.toml: repeats: must be a whole number, not true."),
    ({"repeats": 1.5}, "x.toml: repeats: must be a whole number, not 1.5."),
    ({"repeats": "3"}, 'x.toml: repeats: must be a whole number, not "3".'),
    ({"name": 5}, "x.toml: name: must be a text, not 5."),
    ({"name": " "}, "x.toml: name: must not be empty."),
    ({"methods": []}, "x.toml: methods: must name at least one method."),
    ({"methods": ["tcp", "tcp"]}, "x.toml: methods: must name each method once."),
    ({"methods": ["tpc"]}, 'x.toml: methods: "tpc" is not known.'),
    ({"methods": 3}, "x.toml: methods: must be a list of names, not 3."),
    ({"methods": [3]}, "x.toml: methods: must be a text, not 3."),
    ({"timeout": "0 s"}, "x.toml: timeout: must be more than 0."),
    ({"timeout": 120}, "x.toml: timeout: must be a text, not 120."),
    ({"timeout": "120"}, 'x.toml: timeout: "120" has no unit.'),
    ({"downtime_limit": "0 ms"}, "x.toml: downtime_limit: must be more than 0."),
    ({"downtime_limit": "1 h"}, "x.toml: downtime_limit: must be at most 2000 s."),
    ({"bandwidth_limit": "0 B/s"}, "x.toml: bandwidth_limit: must be more than 0."),
    ({"bandwidth_limit": "unlimited"}, 'x.toml: bandwidth_limit: "unlimited" is not a rate.'),
    ({"channels": 256}, "x.toml: channels: must be 1 to 255, not 256."),
    ({"compression": "zstd:21"}, "x.toml: compression: zstd has levels 1 to 20, not 21."),
    ({"compression": "zlib:0"}, "x.toml: compression: zlib has levels 1 to 9, not 0."),
    ({"compression": "zstd:x"}, 'x.toml: compression: "zstd:x" has no level after its colon.'),
    ({"compression": "lz4"}, 'x.toml: compression: "lz4" is not known.'),
    ({"xbzrle_cache": "1 B"}, "x.toml: xbzrle_cache: must hold at least one page (4 KiB)."),
    ({"prepare_memory": "yes"}, 'x.toml: prepare_memory: must be true or false, not "yes".'),
    ({"prepare_threads": 0}, "x.toml: prepare_threads: must be at least 1, not 0."),
    ({"accelerator": "hvf"}, 'x.toml: accelerator: "hvf" is not known.'),
    ({"kernel": 6}, "x.toml: kernel: must be a text, not 6."),
    ({"modules": 6}, "x.toml: modules: must be a text, not 6."),
    ({"modules": "/lib"}, "x.toml: modules: belong to a kernel: set kernel as well."),
    ({"auto": {"goal": "quickest"}}, 'x.toml: auto.goal: "quickest" is not known.'),
    ({"auto": {"deadline": "0 s"}}, "x.toml: auto.deadline: must be more than 0."),
    ({"auto": {"max_downtime": 1}}, "x.toml: auto.max_downtime: must be a text, not 1."),
    ({"auto": {"cpu_budget": 0}}, "x.toml: auto.cpu_budget: must be more than 0."),
    (
        {"auto": {"cpu_budget": "few"}},
        'x.toml: auto.cpu_budget: must be a number of cores, not "few".',
    ),
    (
        {"auto": {"cpu_budget": True}},
        "x.toml: auto.cpu_budget: must be a number of cores, not true.",
    ),
    ({"auto": {"postcopy": "no"}}, 'x.toml: auto.postcopy: must be true or false, not "no".'),
    ({"link": "1 Gbit/s"}, 'x.toml: link: must be a table ([link]), not "1 Gbit/s".'),
    ({"link": {"rate": "1000"}}, 'x.toml: link.rate: "1000" has no unit.'),
    ({"link": {"rate": "0 bit/s"}}, "x.toml: link.rate: must be more than 0."),
    ({"link": {"rate": "-1 Gbit/s"}}, 'x.toml: link.rate: "-1 Gbit/s" is not a rate.'),
    ({"link": {"count": 0}}, "x.toml: link.count: must be 1 to 8, not 0."),
    (
        {"link": {"count": 3, "rate": ["1 Gbit/s", "2 Gbit/s"]}},
        "x.toml: link.count: must be 2, the number of rates, not 3.",
    ),
    ({"link": {"rate": []}}, "x.toml: link.rate: must be a rate, or a list of rates, not []."),
    ({"guest": {"vcpus": 0}}, "x.toml: guest.vcpus: must be at least 1, not 0."),
    ({"guest": {"memory": "64 MiB"}}, "x.toml: guest.memory: must be at least 128 MiB."),
    (redline(fill="0 B"), "x.toml: guest.redline.fill: must be more than 0."),
    (redline(pattern="texts"), 'x.toml: guest.redline.pattern: "texts" is not known.'),
    (redline(touch="0 B"), "x.toml: guest.redline.touch: must be 1 to 4096 bytes, not 0."),
    (redline(touch="8 KiB"), "x.toml: guest.redline.touch: must be 1 to 4096 bytes, not 8192."),
    (
        redline(dirty_rate="1 MiB/s"),
        "x.toml: guest.redline.dirty_rate: needs memory to rewrite: set guest.redline.hot.",
    ),
    (
        redline(fill="1 GiB", hot="2 GiB"),
        "x.toml: guest.redline.hot: 2 GiB is more than the fill (1 GiB) it is a part of.",
    ),
]


@pytest.mark.parametrize(("mapping", "what"), MISTAKES, ids=[what for _, what in MISTAKES])
def test_a_mistake_is_told_with_file_key_and_what_is_wrong(
    mapping: dict[str, Any], what: str
) -> None:
    assert what in wrong(mapping).what.splitlines()


@pytest.mark.parametrize(
    ("mapping", "hint"),
    [
        ({"methods": ["multichanel"]}, 'Did you mean "multichannel"?'),
        ({"repeat": 3}, 'Did you mean "repeats"?'),
        ({"dirty_rate": "5 MiB/s"}, 'Did you mean "guest.redline.dirty_rate"?'),
        ({"guest": {"memroy": "5 GiB"}}, 'Did you mean "memory"?'),
        (redline(**{"dirty-rate": "5 MiB/s"}), 'Did you mean "dirty_rate"?'),
        ({"zzz": 1}, "Known are: name, repeats, "),
        ({"link": {"rate": "7"}}, 'Or "unlimited".'),
        ({"timeout": 5}, 'Write it as "300 ms".'),
    ],
)
def test_the_hint_names_what_was_probably_meant(mapping: dict[str, Any], hint: str) -> None:
    assert hint in wrong(mapping).hint


def test_all_mistakes_are_told_at_once() -> None:
    told = wrong({"repeat": 3, "channels": "two", "link": {"rate": "7"}}).what.splitlines()
    assert {line.split(": ")[1] for line in told} == {"repeat", "channels", "link.rate"}


def test_a_guest_too_small_for_its_load_is_told_what_would_do() -> None:
    load = Load(fill=900 * MIB, freed=100 * MIB)
    with pytest.raises(ConfigError) as caught:
        check(Scenario(guest=GuestSpec(GIB, redline=load)), "--memory")
    assert "--memory: guest.memory: 1 GiB is too small for 900 MiB of fill" in caught.value.what
    assert "at least 1096 MiB, or guest.redline.fill to at most 828 MiB" in caught.value.what


@given(st.integers(1, 4096), st.integers(0, 4096))
def test_what_the_message_proposes_is_accepted(fill: int, freed: int) -> None:
    memory = max(SMALLEST_GUEST, (fill + freed) * MIB + GUEST_ROOM)
    load = Load(fill=fill * MIB, freed=freed * MIB)
    check(Scenario(guest=GuestSpec(memory, redline=load)), "x")
    if memory > SMALLEST_GUEST:
        with pytest.raises(ConfigError, match="too small"):
            check(Scenario(guest=GuestSpec(memory - 1, redline=load)), "x")


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(timeout=float("nan")),
        Scenario(timeout=float("inf")),
        Scenario(link=LinkSpec(rate=-1.0)),
        Scenario(guest=GuestSpec(redline=Load(hot=-1))),
        Scenario(guest=GuestSpec(redline=Load(hot=1, dirty_rate=-1.0))),
        Scenario(guest=GuestSpec(redline=Load(freed=-1))),
    ],
)
def test_flags_are_checked_like_files(scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match=r"^command line: "):
        check(scenario, "command line")


def test_the_lab_builds_as_many_links_as_a_scenario_may_have() -> None:
    assert MOST_LINKS == MAX_LINKS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"repeats = ", "is not valid TOML"),
        (b"memory = 2 GiB", "is not valid TOML"),
        (b"name = '\xff'", "is not UTF-8 text"),
        (b"repeats = " + b"9" * 5000, "is not valid TOML"),
        (b"x = " + b"[" * 20_000, "is not valid TOML"),
    ],
    ids=["cut", "unquoted", "latin-1", "long number", "deep"],
)
def test_a_file_that_is_not_toml_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    assert caught.value.what.startswith(f"{path}: {said}")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.toml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_scenario(path)


def test_flags_of_methods_and_compression_name_themselves() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_methods("tcp,rmda", "--methods")
    assert caught.value.what == '--methods: methods: "rmda" is not known.'
    assert caught.value.hint == 'Did you mean "rdma"?'
    with pytest.raises(ConfigError, match="has no level"):
        parse_compression("zstd:", "--compression")
    assert parse_compression("zstd", "--compression") == Compression(Codec.ZSTD, 1)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
positive = st.floats(1e-3, 1e12)


@st.composite
def loads(draw: st.DrawFn) -> Load:
    fill = draw(st.integers(1, 1 << 36))
    hot = draw(st.integers(0, fill))
    return Load(
        fill=fill,
        pattern=draw(st.sampled_from(Pattern)),
        hot=hot,
        dirty_rate=draw(st.floats(0, 1e10)) if hot else 0.0,
        access=draw(st.sampled_from(Access)),
        touch=draw(st.integers(1, PAGE)),
        freed=draw(st.integers(0, 1 << 36)),
    )


@st.composite
def links(draw: st.DrawFn) -> LinkSpec:
    rates = draw(st.lists(st.none() | positive, min_size=1, max_size=MOST_LINKS))
    if len(rates) > 1:
        return LinkSpec(rates[0], len(rates), tuple(rates))
    return LinkSpec(rates[0], draw(st.integers(1, MOST_LINKS)))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    load = draw(loads())
    least = max(SMALLEST_GUEST, load.fill + load.freed + GUEST_ROOM)
    codec = draw(st.sampled_from(Codec))
    kernel = draw(st.none() | st.just(Path("/boot/vmlinuz-6.1 \N{MICRO SIGN}")))
    modules = draw(st.none() | st.just(Path("/lib/modules/6.1"))) if kernel else None
    return Scenario(
        name=draw(names.filter(str.strip)),
        repeats=draw(st.integers(1, 1000)),
        methods=tuple(draw(st.lists(st.sampled_from(Method), min_size=1, unique=True))),
        timeout=draw(positive),
        link=draw(links()),
        guest=GuestSpec(draw(st.integers(least, 1 << 40)), draw(st.integers(1, 512)), load),
        settings=Settings(
            channels=draw(st.integers(1, 255)),
            compression=Compression(codec, draw(st.integers(1, codec.highest))),
            xbzrle_cache=draw(st.integers(PAGE, 1 << 36)),
            bandwidth_limit=draw(st.none() | positive),
            downtime_limit=draw(st.floats(1e-6, 2000)),
            prepared_memory=draw(st.none() | st.builds(PreparedMemory, st.integers(1, 64))),
            free_page_hints=draw(st.booleans()),
            encrypted=draw(st.booleans()),
        ),
        auto=AutoSpec(
            goal=draw(st.sampled_from(Goal)),
            max_downtime=draw(st.none() | positive),
            deadline=draw(st.none() | positive),
            cpu_budget=draw(st.none() | positive),
            postcopy=draw(st.booleans()),
        ),
        accelerator=draw(st.sampled_from(AcceleratorChoice)),
        kernel=kernel,
        modules=modules,
    )


@settings(max_examples=200, deadline=None)
@given(scenarios())
def test_a_scenario_written_as_toml_reads_back_exactly(scenario: Scenario) -> None:
    again = scenario_from(tomllib.loads(scenario_toml(scenario)), "x")
    assert again == scenario
    assert scenario_document(again) == scenario_document(scenario)


def test_unequal_nics_are_a_list_or_one_text_and_bring_their_method() -> None:
    wanted = LinkSpec(125e6, 2, (125e6, None))
    for rate in (["1 Gbit/s", "unlimited"], "1 Gbit/s, unlimited"):
        found = scenario_from({"link": {"rate": rate}}, "x")
        assert found.link == wanted
        assert Method.MULTINIC in found.methods
    assert Method.MULTINIC not in scenario_from({}, "x").methods


def test_toml_is_written_as_a_person_would() -> None:
    text = scenario_toml(default_scenario(quick=False))
    for line in ('rate = "1 Gbit/s"', 'memory = "4 GiB"', 'downtime_limit = "300 ms"'):
        assert f"\n{line}\n" in text
    for line in ('fill = "3584 MiB"', 'timeout = "120 s"', 'bandwidth_limit = "none"'):
        assert f"\n{line}\n" in text
