"""`up`: which steps there are, and what each waits for."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from bootstrap import (
    addons,
    apt,
    cgroups,
    commands,
    console,
    control_plane,
    gobuild,
    leftovers,
    network,
    node,
    pki,
    plugins,
    preflight,
    processes,
    registry,
    rootfs,
    schedule,
    service,
    sources,
    stack,
)
from bootstrap.downloads import Hosts
from bootstrap.errors import BootstrapError
from bootstrap.parts import (
    ADDONS,
    BUILDKITD,
    ENGINE,
    ENGINE_PARTS,
    KUBE,
    NODE_PARTS,
    WEED,
    Part,
)
from bootstrap.paths import LOGIN_URL, Layout
from bootstrap.schedule import Step, Task
from bootstrap.service import Service


def check_machine(layout: Layout) -> None:
    """Raises, before anything is made, when the machine cannot carry the node."""
    wrong = [finding for finding in preflight.findings(layout) if not finding.fine]
    if wrong:
        told = "\n".join(f"{finding.what}. To do: {finding.do}." for finding in wrong)
        raise BootstrapError(f"This machine cannot carry the embedded cluster yet:\n{told}")


def _part(layout: Layout, part: Part, hosts: Hosts, order: sources.Sources) -> Step:
    return Step(part.name, lambda task: sources.ensure(layout, task, part, hosts, order))


def _servers(layout: Layout, *services: Service) -> Callable[[Task], str]:
    def run(task: Task) -> str:
        outcomes = []
        for one in services:
            outcomes.append(service.ensure(one, layout, task))
        changed = [f"{one.name} {o}" for one, o in zip(services, outcomes, strict=True)]
        return "running" if set(outcomes) == {"running"} else ", ".join(changed)

    return run


def _plugins(layout: Layout, task: Task) -> str:
    ready = (layout.bin / "pulumi-language-python-exec").exists()
    go = "go" if ready else gobuild.find_go(layout, task)
    try:
        laid = plugins.install(layout.bin, Path(sys.executable), go)
    except plugins.InstallError as error:
        raise BootstrapError(str(error)) from error
    return f"laid {', '.join(laid)}" if laid else "there"


def _programs(layout: Layout) -> str:
    """Lays what goes into the SeaweedFS image in a folder with nothing else (images/seaweedfs)."""
    program = layout.programs / "seaweedfs" / "weed"
    if program.exists() and program.samefile(layout.bin / "weed"):
        return "there"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    program.hardlink_to(layout.bin / "weed")
    return "laid weed"


def _apply_addons(layout: Layout, task: Task) -> str:
    addons.apply(layout, addons.push_images(layout), rootfs.image(layout))
    addons.wait_ready(layout, task.say)
    return "ready"


def engine_steps(layout: Layout, hosts: Hosts, order: sources.Sources) -> list[Step]:
    """What `pulumi up` needs on every machine, with or without a cluster."""
    return [
        *(_part(layout, part, hosts, order) for part in ENGINE_PARTS),
        Step("plug-ins", lambda task: _plugins(layout, task), (ENGINE.name,)),
        Step("programs", lambda _: _programs(layout), (WEED.name,)),
    ]


def node_steps(layout: Layout, hosts: Hosts, order: sources.Sources) -> list[Step]:
    """The cluster, the registry and the builder. `packages` stands for the machine's own part."""

    def once(work: Callable[[], object], outcome: str) -> Callable[[Task], str]:
        def run(_: Task) -> str:
            work()
            return outcome

        return run

    def network_and_groups() -> None:
        network.ensure()
        cgroups.ensure()

    def builder(task: Task) -> str:
        registry.write_builder(layout)
        return _servers(layout, registry.buildkit(layout))(task)

    planes = [
        control_plane.etcd(layout),
        control_plane.api_server(layout),
        control_plane.controller_manager(layout),
        control_plane.scheduler(layout),
    ]
    return [
        *(_part(layout, part, hosts, order) for part in NODE_PARTS),
        Step("packages", lambda task: apt.ensure(layout, task)),
        Step("certificates", once(lambda: pki.ensure(layout), "valid")),
        Step("network", once(network_and_groups, "172.31.250.1 on mlhub0"), ("packages",)),
        Step("registry", _servers(layout, registry.registry(layout)), ("packages", "certificates")),
        Step("debian", lambda task: rootfs.ensure(layout, task), ("packages",)),
        Step("debian image", lambda _: rootfs.push(layout), ("debian", "registry")),
        Step("containerd", _servers(layout, node.containerd(layout)), ("network", "certificates")),
        Step("control plane", _servers(layout, *planes), (KUBE.name, "certificates", "network")),
        Step(
            "node",
            _servers(layout, node.kubelet(layout), node.proxy(layout)),
            ("control plane", "containerd"),
        ),
        Step(
            "cluster",
            lambda task: _apply_addons(layout, task),
            ("node", ADDONS.name, WEED.name, "debian image"),
        ),
        Step("builder", builder, (BUILDKITD.name, "registry", "network")),
    ]


def run(
    layout: Layout,
    *,
    take_over: bool = False,
    only_cluster: bool = False,
    applies: bool = True,
    from_source: bool = False,
) -> None:
    """Everything up to the log-in page. What is there already is left alone.

    only_cluster: neither engine nor stack.
    applies: False leaves the stack as it is, once it is there.
    from_source: neither releases nor the cache; to try the build.
    """
    began = time.monotonic()
    context = stack.own_context(layout)
    if not context:
        check_machine(layout)
    layout.make()
    processes.name_instance(layout)
    ended = commands.end_orphans(layout)
    if ended:
        console.say(f"ended {ended} commands of a run that was killed")
    hosts = Hosts()
    order = (sources.from_build,) if from_source else sources.SOURCES
    if context:
        console.say(f"cluster: {context}, from {stack.stack_file(layout)}; no node is made here")
        steps = [_part(layout, WEED, hosts, order), *engine_steps(layout, hosts, order)]
    else:
        console.say(f"machine: {leftovers.settle(layout, take_over)}")
        steps = [*node_steps(layout, hosts, order)]
        if not only_cluster:
            steps += engine_steps(layout, hosts, order)
    watcher = console.watcher()
    try:
        done = schedule.run(steps, watcher)
    finally:
        watcher.close()
    gobuild.drop_caches(layout)
    if not only_cluster:
        done += _apply_stack(layout, context, applies=applies)
    total = time.monotonic() - began
    console.write_times(layout, done, total)
    console.say(console.table(done, total))
    if applies and not only_cluster and not context:
        console.say(f"\nLog in at {LOGIN_URL} as alice; `make password USER=alice` prints how.")


def _apply_stack(layout: Layout, context: str | None, *, applies: bool) -> list[schedule.Done]:
    lines = console.Lines()
    done = schedule.run([Step("stack", lambda task: stack.ensure(layout, task))], lines)
    if not applies:
        return done
    began = time.monotonic()
    stack.apply(layout)
    done.append(schedule.Done("pulumi up", time.monotonic() - began, "applied"))
    if not context:
        began = time.monotonic()
        stack.wait_for_login()
        done.append(schedule.Done("log-in page", time.monotonic() - began, "answers"))
    return done
