"""The node's address, and the packet rules that are ours.

Pods hang on point-to-point links (CNI `ptp`), so every packet of a pod passes the machine's own
forwarding: no pod reaches another beside the rules. Every new connection of a pod, whether to a
pod, to the node or beyond, waits for the verdict of the policy agent; with no agent listening it
is dropped (NFQUEUE without bypass).
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bootstrap.errors import BootstrapError
from bootstrap.paths import DEVICE, NODE_ADDRESS, NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK

POD_LINKS = "veth+"
"""The machine's ends of the pods' links, as the ptp plug-in names them."""

GATE_QUEUE = 101
"""Where the agent holds a packet until it knows the pod that sent it."""

POLICY_QUEUE = 100
"""Where the agent gives the verdict of the policies."""

NAMESPACES = Path("/run/netns")

AT_LEAST = {
    # The kubelet, containerd and every notebook server watch files.
    "fs/inotify/max_user_instances": 512,
    "fs/inotify/max_user_watches": 262144,
}

SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/route_localnet": "1",  # NodePorts on 127.0.0.1
}


def rules() -> str:
    """Our chains for `iptables-restore --noflush`, which replaces each of them in one step.

    The policy chains are in `mangle`, before `filter`: kube-proxy's own chains come first in
    `filter` whenever it starts, and accept what they have marked. What still has a service's
    address there is for a service without a pod. It goes nowhere, and is told so at once: the
    agent, which knows of no such address, would leave the caller to wait.
    """
    return f"""\
*mangle
:MLHUB-GATE - [0:0]
:MLHUB-POLICY - [0:0]
-A MLHUB-GATE -m rpfilter --invert -m comment --comment "mlhub: a pod sends as itself" -j DROP
-A MLHUB-GATE -m conntrack --ctstate NEW -j NFQUEUE --queue-num {GATE_QUEUE}
-A MLHUB-POLICY -m conntrack --ctstate INVALID -j DROP
-A MLHUB-POLICY -d {SERVICE_NETWORK} -j RETURN
-A MLHUB-POLICY -m conntrack --ctstate NEW -j NFQUEUE --queue-num {POLICY_QUEUE}
COMMIT
*filter
:MLHUB-FORWARD - [0:0]
-A MLHUB-FORWARD -d {SERVICE_NETWORK} -j REJECT
-A MLHUB-FORWARD -s {POD_NETWORK} -j ACCEPT
-A MLHUB-FORWARD -d {POD_NETWORK} -j ACCEPT
COMMIT
*nat
:MLHUB-MASQUERADE - [0:0]
-A MLHUB-MASQUERADE -d {POD_NETWORK} -j RETURN
-A MLHUB-MASQUERADE -d {NODE_NETWORK} -j RETURN
-A MLHUB-MASQUERADE -j MASQUERADE
COMMIT
"""


def rules_v6() -> str:
    """Pods have no IPv6 network, only the link's own addresses; nothing may pass by them."""
    return """\
*mangle
:MLHUB-GATE - [0:0]
-A MLHUB-GATE -j DROP
COMMIT
"""


JUMPS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("mangle", "PREROUTING", ("-i", POD_LINKS, "-j", "MLHUB-GATE")),
    ("mangle", "FORWARD", ("-i", POD_LINKS, "-j", "MLHUB-POLICY")),
    ("mangle", "FORWARD", ("!", "-i", POD_LINKS, "-o", POD_LINKS, "-j", "MLHUB-POLICY")),
    ("mangle", "INPUT", ("-i", POD_LINKS, "-j", "MLHUB-POLICY")),
    ("filter", "FORWARD", ("-j", "MLHUB-FORWARD")),
    ("nat", "POSTROUTING", ("-s", POD_NETWORK, "-j", "MLHUB-MASQUERADE")),
)
KUBELET_JUMPS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("filter", "INPUT", ("-j", "KUBE-FIREWALL")),
    ("filter", "OUTPUT", ("-j", "KUBE-FIREWALL")),
    *(
        (table, "", ("-j", chain))
        for table in ("mangle", "filter", "nat")
        for chain in ("KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT")
    ),
)
"""What the kubelet leaves, and `kube-proxy --cleanup` does not know. Canaries have no jump."""

JUMPS_V6: Sequence[tuple[str, str, Sequence[str]]] = (
    ("mangle", "PREROUTING", ("-i", POD_LINKS, "-j", "MLHUB-GATE")),
)


def _run(argv: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False)


def _must(argv: Sequence[str], text: str | None = None) -> None:
    done = _run(argv, text)
    if done.returncode:
        raise BootstrapError(
            f"`{' '.join(argv)}` failed: {done.stderr.strip()}. The node needs a kernel that can "
            "filter packets (nftables or ip_tables, conntrack, NFQUEUE); `make doctor` lists it."
        )


def _ensure_jumps(command: str, jumps: Sequence[tuple[str, str, Sequence[str]]]) -> None:
    for table, chain, rule in jumps:
        base = [command, "-w", "10", "-t", table]
        if _run([*base, "-C", chain, *rule]).returncode:
            _must([*base, "-I", chain, "1", *rule])


def ensure_rules() -> None:
    """Loads our chains and leads the pods' packets into them. Changes nothing else."""
    _must(["iptables-restore", "-w", "10", "--noflush"], rules())
    _ensure_jumps("iptables", JUMPS)
    if Path("/proc/net/if_inet6").exists():
        _must(["ip6tables-restore", "-w", "10", "--noflush"], rules_v6())
        _ensure_jumps("ip6tables", JUMPS_V6)


def ensure_device() -> None:
    """A bridge that carries the node's address: it stays the same when the machine's changes."""
    link = Path("/sys/class/net") / DEVICE
    if link.exists() and not (link / "bridge").exists():
        raise BootstrapError(
            f"The network device {DEVICE} exists and is no bridge of ours. Remove it with "
            f"`ip link delete {DEVICE}`, then run `make up` again."
        )
    if not link.exists():
        _must(["ip", "link", "add", DEVICE, "type", "bridge"])
    shown = _run(["ip", "-4", "-o", "addr", "show", "to", NODE_NETWORK]).stdout.split("\n")
    others = [line.split()[1] for line in shown if line and line.split()[1] != DEVICE]
    if others:
        raise BootstrapError(
            f"The network {NODE_NETWORK} is in use on device {others[0]}; the node needs it for "
            "itself. Free it, or use a cluster of your own (cluster.context in the stack file)."
        )
    _must(["ip", "address", "replace", f"{NODE_ADDRESS}/24", "dev", DEVICE])
    _must(["ip", "link", "set", DEVICE, "up"])


def ensure_sysctls() -> None:
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)
    for name, least in AT_LEAST.items():
        path = Path("/proc/sys") / name
        if int(path.read_text()) < least:
            path.write_text(str(least))


def ensure_namespaces(folder: Path = NAMESPACES) -> None:
    """Makes the folder of network namespaces a mount of its own, as `ip netns add` does.

    If that command came later, it would lay a new mount over pods' namespaces, and containerd
    could no longer remove them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()) and mounts(folder) != 1:
        remove_namespaces(folder)
        _must(["mount", "--bind", str(folder), str(folder)])
        _must(["mount", "--make-shared", str(folder)])


def remove_namespaces(folder: Path = NAMESPACES) -> None:
    """Unmounts the folder, unless somebody's namespace is in it."""
    while not any(folder.iterdir()) and (left := mounts(folder)):
        _run(["umount", str(folder)])
        if mounts(folder) >= left:
            return  # in use


def mounts(folder: Path) -> int:
    """How many lie on it. `os.path.ismount` sees none where /run is no file system of its own.

    Each mount of a shared folder on itself is repeated in those below, so that every further one
    doubles the mounts of all pods: after a dozen, starting a container took the kernel seconds.
    """
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == str(folder) for line in lines)


def ensure() -> None:
    """Device, sysctls and rules, whatever of them was there before."""
    ensure_namespaces()
    ensure_device()
    ensure_sysctls()
    ensure_rules()


def remove() -> None:
    """Takes our jumps, chains and device away again; what is not there is no error."""
    kinds = (("iptables", JUMPS), ("ip6tables", JUMPS_V6))
    for command, ours in kinds:
        jumps = (*ours, *KUBELET_JUMPS)
        for table, chain, rule in jumps:
            base = [command, "-w", "10", "-t", table]
            while chain and _run([*base, "-D", chain, *rule]).returncode == 0:
                pass
        for table, chain in sorted({(table, rule[-1]) for table, _, rule in jumps}):
            for action in ("-F", "-X"):
                _run([command, "-w", "10", "-t", table, action, chain])
    # The agent removes its own table when it ends; one that was killed could not.
    if shutil.which("nft"):
        _run(["nft", "delete", "table", "inet", "kube-network-policies"])
    if (Path("/sys/class/net") / DEVICE / "bridge").exists():
        _run(["ip", "link", "delete", DEVICE])
    if NAMESPACES.is_dir():
        remove_namespaces()
