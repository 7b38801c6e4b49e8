"""A third nested host that serves a folder by SMB 3, and one by NFS; clients are the kernel's own.

    SMB   Samba, multichannel on       //store/vms   mounted at /srv/smb
    NFS   the kernel's server          store:/           mounted at /srv/nfs

Each client has wires of its own to the server, so `store` is another address on each; both see
the same name, by which mounts are compared. What is served lies in the server's memory.
"""

import re

from whimbrel.lab.nested.hosts import NestedHost

SERVER = "store"
SMB, NFS, LOCAL = "/srv/smb", "/srv/nfs", "/srv/local"
SERVED = "/srv/vms"
"""At the server: what it serves by SMB in a folder `smb`, and by NFS in `nfs`."""

PASSWORD = "only-within-this-test"

_SMB_CONF = """\
[global]
server min protocol = SMB3
server multi channel support = yes
aio read size = 1
interfaces = {interfaces}
bind interfaces only = yes
disable netbios = yes
smb ports = 445
log file = /var/log/samba.log
map to guest = never
[vms]
path = /srv/vms/smb
read only = no
strict locking = no
"""


async def serve(server: NestedHost, size: str = "600m") -> None:
    """Start both servers; returns when both answer."""
    await server.run("mkdir", "-p", SERVED)
    await server.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", SERVED)
    await server.run("mkdir", f"{SERVED}/smb", f"{SERVED}/nfs")
    interfaces = " ".join(
        f'"eth{number};capability=RSS,speed=1000000000"'
        for number in range(1, len(server.wires) + 1)
    )
    await _write(server, "/etc/samba/smb.conf", _SMB_CONF.format(interfaces=interfaces))
    await server.run("mkdir", "-p", "/run/samba", "/var/lib/samba/private", "/var/log/samba")
    given = f"{PASSWORD}\n{PASSWORD}\n".encode()
    await server.run("smbpasswd", "-s", "-a", "root", given=given)
    await server.run("smbd", "-D")
    await server.run("modprobe", "nfsd")
    await server.run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    await server.run("mkdir", "-p", "/var/lib/nfs/v4recovery", "/run/rpc_pipefs")
    await server.run("rpc.mountd", "--no-nfs-version", "3")
    options = "rw,sync,no_root_squash,no_subtree_check,fsid=0"
    await server.run("exportfs", "-i", "-o", options, f"10.0.0.0/8:{SERVED}/nfs")
    await server.run("rpc.nfsd", "--no-nfs-version", "3", "--tcp", "--no-udp", "4")


async def mount(client: NestedHost, address: str, *, channels: int = 2) -> None:
    """Mount both on a client that reaches the server at this address."""
    await client.run("sh", "-c", f"echo {address} {SERVER} >>/etc/hosts")
    await client.run("modprobe", "-a", "cifs", "nfsv4")
    await client.run("mkdir", "-p", SMB, NFS)
    await _write(client, "/etc/whimbrel-smb", f"username=root\npassword={PASSWORD}\n")
    options = "credentials=/etc/whimbrel-smb,vers=3.1.1,cache=none,multichannel"
    options += f",max_channels={channels},nobrl,file_mode=0600,dir_mode=0700"
    await client.run("mount", "-t", "cifs", f"//{SERVER}/vms", SMB, "-o", options)
    await client.run("mount", "-t", "nfs4", f"{SERVER}:/", NFS, "-o", "vers=4.2,hard")


async def sent_by_smb(client: NestedHost) -> list[int]:
    """Return the bytes that a client has sent over each of its connections to the SMB server."""
    told = await client.run("ss", "--tcp", "--info", "--numeric", "dport", "=", ":445")
    return [int(sent) for sent in re.findall(r"bytes_sent:(\d+)", told)]


async def _write(host: NestedHost, path: str, content: str) -> None:
    await host.run("sh", "-c", 'umask 077; cat >"$1"', "write", path, given=content.encode())


async def local_disk(host: NestedHost, size: str = "160M") -> None:
    """Give a host a file system of its own at LOCAL, which QEMU can open past the page cache."""
    await host.run("modprobe", "-a", "loop", "ext4")
    await host.run("mkdir", "-p", LOCAL)
    await host.run("truncate", "-s", size, "/run/local.img")
    await host.run("mkfs.ext4", "-q", "/run/local.img")
    await host.run("mount", "-o", "loop", "/run/local.img", LOCAL)
