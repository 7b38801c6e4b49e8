"""Guests, links and hosts for the tests of theory, and hypothesis strategies for them."""

from dataclasses import dataclass

from hypothesis import strategies as st

from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.units import GIB, MIB, PAGE
from whimbrel.theory.dirtying import sequential, skewed, uniform
from whimbrel.theory.rules import QemuRules

KVM = QemuRules.of((10, 0), "kvm")
TCG = QemuRules.of((10, 0), "tcg")
LAWS = (uniform, sequential, skewed)


@dataclass(frozen=True)
class Guest:
    """One drawn guest with its link."""

    memory: int
    zero_share: float
    hot_pages: float
    write_rate: float
    law: int
    goodput: float

    def survey(self, *, faster_link: float = 1.0, faster_writer: float = 1.0) -> Survey:
        curve = LAWS[self.law](self.hot_pages, self.write_rate * faster_writer)
        return Survey(
            MemoryProfile(total=self.memory, zero_share=self.zero_share, dirty=curve),
            LinkProfile({1: self.goodput * faster_link}),
        )


@st.composite
def guests(draw: st.DrawFn) -> Guest:
    memory = draw(st.sampled_from([256 * MIB, GIB, 4 * GIB]))
    zero = draw(st.floats(0, 0.9))
    hot = draw(st.floats(0.001, 1)) * (1 - zero) * (memory // PAGE)
    return Guest(
        memory=memory,
        zero_share=zero,
        hot_pages=hot,
        write_rate=10 ** draw(st.floats(1, 5.3)),
        law=draw(st.integers(0, len(LAWS) - 1)),
        goodput=10 ** draw(st.floats(7.7, 9.2)),
    )


def still_guest(zero_share: float = 0.5, *, link: float = 1.25e9, memory: int = GIB) -> Survey:
    profile = MemoryProfile(total=memory, zero_share=zero_share)
    return Survey(profile, LinkProfile({1: link, 2: link}))


def lcg_guest(
    writes: float, *, busy_share: float = 1.0, link: float = 1.5e9, begins: int = 512 * MIB
) -> Survey:
    """Return the measured guest: 4 GiB, of which 2 GiB are rewritten in full-period order.

    The record does not say where the 2 GiB lay. That they begin at 512 MiB is an assumption,
    taken because it fits the one case that depends on it (chunks of 1 GiB).
    """
    memory = MemoryProfile(
        total=4 * GIB,
        zero_share=0.5,
        dirty=sequential(2 * GIB // PAGE, writes),
        busy_share=busy_share,
        extent=(begins, begins + 2 * GIB),
    )
    return Survey(memory, LinkProfile({1: link}), HostProfile(), HostProfile())
