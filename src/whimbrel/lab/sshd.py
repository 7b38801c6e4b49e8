"""The configuration of an sshd that stands for a host of its own, beside this machine's."""

from pathlib import Path


def sshd_config(listen: str, host_key: Path, authorized: Path, pid_file: str = "none") -> str:
    """Return the lines of an sshd_config: root by key, and as many sessions as moves need.

    Args:
        listen: Address and port.
        host_key: Its private key.
        authorized: The public keys that may enter.
        pid_file: Where its process is written down.
    """
    # SHLVL keeps bash from reading .bashrc (run_startup_files): whatever stands there is not the
    # host's, may be slow, and is killed with the host amid its work.
    return f"""\
ListenAddress {listen}
HostKey {host_key}
AuthorizedKeysFile {authorized}
PidFile {pid_file}
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowStreamLocalForwarding yes
PrintMotd no
UseDNS no
MaxSessions 1000
MaxStartups 1000
LoginGraceTime 120
SetEnv SHLVL=2
"""
