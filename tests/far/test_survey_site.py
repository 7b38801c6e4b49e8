"""Hosts behind SSH and the link between them, probed for a survey."""

from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from far.hosts import FarHosts, far_hosts, needs_far_hosts
from whimbrel.errors import HostError
from whimbrel.hypervisors.connect import connect as resident_of
from whimbrel.lab.image import APPEND, BEAT_PORT, CONTROL_PORT, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import Vm
from whimbrel.model.memory import HostProfile
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.survey import Depth
from whimbrel.model.units import MIB, PAGE
from whimbrel.practice.survey import Subject, survey
from whimbrel.practice.survey_site import SiteHost, SiteLink
from whimbrel.sites.connect import connect

pytestmark = needs_far_hosts

LOAD = Load(fill=64 * MIB, pattern=Pattern.TEXT, hot=16 * MIB, dirty_rate=10 * MIB)

RATE = 125e6
"""1 Gbit/s, of which TCP with full frames gets 0.956."""


async def test_a_host_tells_what_it_has_and_what_memory_costs_there(far: FarHosts) -> None:
    async with connect(far.b.host) as site:
        host = SiteHost(site)
        before = await host.idle()
        facts = await host.facts()
        profile = await host.cost(HostProfile(spare_cores=1.5), {}, 16 << 20)
        after = await host.idle()
    assert facts.cores >= 1
    assert 0 < facts.available_memory <= facts.memory
    assert profile.spare_cores == 1.5
    assert 0 < profile.copy_seconds < 1e-3
    assert after.at > before.at
    assert after.idle >= before.idle


async def test_a_hosts_interfaces_are_those_of_its_own_network(far: FarHosts) -> None:
    async with connect(far.a.host) as site:
        facts = await site.ask("facts")
        counters = await site.ask("counters")
    assert set(facts["interfaces"]) == {"w0", "ctl"}
    assert facts["interfaces"]["w0"]["addresses"] == [f"{far.a.lab.addresses[0]}/24"]
    assert facts["interfaces"]["w0"]["kind"] == "veth"
    assert facts["interfaces"]["w0"]["state"] == "up"
    assert set(counters["interfaces"]) == {"w0", "ctl"}
    assert facts["network"] != Path("/proc/thread-self/ns/net").stat().st_ino


async def test_a_link_of_one_gigabit_is_found_to_be_about_that() -> None:
    async with far_hosts(RATE) as far, connect(far.a.host) as a, connect(far.b.host) as b:
        link = await SiteLink.between(a, b, far.b.lab.addresses[0])
        reading = await link.probe([1, 2], 0.5)
    assert set(reading.goodput) == {1, 2}
    for goodput in reading.goodput.values():
        assert 0.6 * RATE < goodput < 1.05 * RATE
    assert 0 < reading.latency < 0.1
    assert reading.nominal == 1.25e9  # what every veth says
    assert reading.other_traffic < 0.1 * RATE
    assert all(waited > 0 for waited in reading.in_flight.values())


async def test_a_guest_on_a_far_host_is_surveyed_by_reading_its_memory_there(
    far: FarHosts,
) -> None:
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(connect(host)) for host in far.hosts]
        resident = await stack.enter_async_context(resident_of(far.a.host, a))
        image = build_image(find_kernel())
        vm = Vm(
            "redline",
            256 * MIB,
            kernel=image.kernel,
            initrd=image.initrd,
            append=APPEND,
            channels=(CONTROL_PORT, BEAT_PORT),
        )
        machine = await resident.start(vm)
        async with Redline.connect(machine.channel(CONTROL_PORT), 60.0) as redline:
            await redline.ready()
            await redline.fill(LOAD, lambda _: None)
        subject = Subject(
            machine.inspection(),
            await SiteLink.between(a, b, far.b.lab.addresses[0]),
            SiteHost(a),
            SiteHost(b),
        )
        found = await survey(subject, Depth.QUICK, generator=np.random.default_rng(1))
        await machine.stop()
    assert found.looks > 0
    assert found.link is not None
    assert found.survey.link.goodput == found.link.goodput
    dirtied = found.survey.memory.dirty.distinct(0.2) * PAGE / 0.2
    assert 0.5 * LOAD.dirty_rate < dirtied < 2.5 * LOAD.dirty_rate
    assert found.survey.source.compress_speed
    assert found.destination_facts.cores >= 1


async def test_mptcp_uses_both_links() -> None:
    rate = 25e6
    async with far_hosts(rate, count=2) as far, connect(far.a.host) as a, connect(far.b.host) as b:
        address, *further = far.b.lab.addresses
        link = await SiteLink.between(a, b, address, further=further)
        reading = await link.probe([1], 0.5)
    assert 1.2 * rate < reading.goodput[1] < 2.1 * rate


async def test_a_link_that_is_cut_is_said_to_be_and_nothing_stays_listening(far: FarHosts) -> None:
    async with connect(far.a.host) as a, connect(far.b.host) as b:
        link = await SiteLink.between(a, b, far.b.lab.addresses[0])
        far.cut_link()
        with pytest.raises(HostError, match=r"from a to 10\.99\.0\.2 on b cannot be measured"):
            await link.probe([1], 0.2)


async def test_an_address_that_the_destination_does_not_have_is_said(far: FarHosts) -> None:
    async with connect(far.a.host) as a, connect(far.b.host) as b:
        link = await SiteLink.between(a, b, "10.99.0.77")
        with pytest.raises(HostError, match=r"b cannot listen on 10\.99\.0\.77"):
            await link.probe([1], 0.2)
        with pytest.raises(HostError, match=r"a has no way to 192\.0\.2\.1 on b"):
            await SiteLink.between(a, b, "192.0.2.1")
