"""More patience than whimbrel has: an emulated host on a busy machine answers late, not wrongly.

Python imports this by its name at its start, so it holds for every whimbrel, the scheduler's too.
"""

from whimbrel.cli import session
from whimbrel.hypervisors.qemu import machine, monitor, resident, resident_process
from whimbrel.sites import site, ssh

session.SEEN_WITHIN = 300.0
ssh.CONNECT_WITHIN = 120.0
ssh.REACHED_WITHIN = 60.0
ssh.ALIVE_EVERY = 100.0
site.READY_WITHIN = 300.0
monitor.ANSWER_WITHIN = 300.0
machine.RUNS_WITHIN = 300.0
resident._ANSWERS_WITHIN = 60.0
resident_process.GREETS_WITHIN = 60.0
