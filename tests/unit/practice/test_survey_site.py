from typing import Any

from whimbrel.practice.survey_site import Carried, carried_from


def interface(address: str, rate: float | None) -> dict[str, Any]:
    return {"addresses": [f"{address}/24"], "rate": rate}


def test_only_interfaces_on_the_way_count_and_their_rates_add_up() -> None:
    interfaces = {"a": interface("10.0.0.1", 1e9), "b": interface("10.0.1.1", 2e9)}
    each = {"received": 1, "sent": 2}
    counters = {"at": 5.0, "interfaces": {"a": each, "b": each}}
    assert carried_from(interfaces, counters, ["10.0.0.1"]) == Carried(5.0, 1, 2, 1e9)
    both = carried_from(interfaces, counters, ["10.0.0.1", "10.0.1.1"])
    assert both == Carried(5.0, 2, 4, 3e9)
    interfaces["b"]["rate"] = None
    assert carried_from(interfaces, counters, ["10.0.0.1", "10.0.1.1"]).nominal is None


def test_others_traffic_is_the_busier_direction() -> None:
    before, after = Carried(1.0, 100, 0, None), Carried(3.0, 300, 800, None)
    assert before.others(after) == 400.0
