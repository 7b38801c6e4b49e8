"""The exit codes as every help page ends with them; docs/cli.md says more about each."""

EXIT_CODES = """[bold]Exit codes:[/bold] 0 done · 1 a bug in whimbrel · 2 a value is wrong ·
3 no way to move within the limits ·
4 not moved; the guest is safe at the source ·
5 it is not known where the guest runs · 6 a host or its hypervisor failed ·
7 the lab could not be built or used, or damaged memory was found ·
8 moved, but a goal was missed · 130 interrupted"""
