"""Row V4: an idle server is culled, a busy kernel is spared.

The stack culls after an hour. This test asks the same culler, with the same rights, in the hub's
own pod, for a shorter time-out; the activity it judges by is what the running servers reported.
"""

from datetime import UTC, datetime

from tests.e2e.platform import NAMESPACE, Kubectl, Person, wait_until

IDLE_SECONDS = 90
"""Longer than the interval at which servers report their activity (60 s in the local stack)."""

BUSY_KERNEL = """async (seconds) => {
    const xsrf = document.cookie.split('; ').find(c => c.startsWith('_xsrf=')).slice(6);
    const kernels = `${location.host}/user/alice/api/kernels`;
    const headers = {'X-XSRFToken': xsrf};
    const made = await fetch(`http://${kernels}`, {method: 'POST', headers});
    const kernel = await made.json();
    const socket = new WebSocket(`ws://${kernels}/${kernel.id}/channels`);
    await new Promise(opened => socket.onopen = opened);
    const header = {msg_id: crypto.randomUUID(), username: '', session: crypto.randomUUID(),
                    msg_type: 'execute_request', version: '5.3', date: new Date().toISOString()};
    socket.send(JSON.stringify({
        header, parent_header: {}, metadata: {}, channel: 'shell', buffers: [],
        content: {code: `import time; time.sleep(${seconds})`, silent: false, store_history: false,
                  user_expressions: {}, allow_stdin: false, stop_on_error: true}}));
    return kernel.id;
}"""

CULL_ONCE = """
import os, subprocess, sys
from pathlib import Path
secrets = Path("/usr/local/etc/jupyterhub/existing-secret")
token = (secrets / "hub.services.jupyterhub-idle-culler.apiToken").read_text().strip()
env = dict(os.environ, JUPYTERHUB_API_TOKEN=token)
culler = subprocess.Popen(
    [sys.executable, "-m", "jupyterhub_idle_culler", "--url=http://127.0.0.1:8081/hub/api",
     "--timeout={timeout}", "--cull-every=600"], env=env)
try:
    culler.wait(20)  # it culls once at its start, then sleeps
except subprocess.TimeoutExpired:
    culler.terminate()
"""


def idle_for(person: Person) -> float:
    """Seconds since the last activity of the person's server, by what it told the hub."""
    (server,) = person.hub("GET", f"users/{person.name}")["body"]["servers"].values()
    return (datetime.now(UTC) - datetime.fromisoformat(server["last_activity"])).total_seconds()


def test_V4_an_idle_server_is_culled_and_a_busy_kernel_is_spared(person, kubectl: Kubectl):
    bob = person("bob").log_in().start_server()
    alice = person("alice").log_in().start_server()
    alice.page.evaluate(BUSY_KERNEL, IDLE_SECONDS * 4)
    # A browser that stays on the lab polls the server, which is activity: both walk away.
    alice.page.goto("about:blank")
    bob.page.goto("about:blank")
    kernels = lambda: kubectl.exec(  # noqa: E731
        alice.pod, "sh", "-c", "ps ax | grep -c '[i]pykernel_launcher' || true"
    )
    wait_until("the kernel runs", lambda: int(kernels()) >= 1)
    wait_until("bob's server is idle", lambda: idle_for(bob) > IDLE_SECONDS, IDLE_SECONDS + 90)
    assert idle_for(alice) < IDLE_SECONDS

    hub_pod = kubectl("-n", NAMESPACE, "get", "pods", "-l", "component=hub", "-o", "name").strip()
    kubectl(
        "-n",
        NAMESPACE,
        "exec",
        hub_pod,
        "--",
        "python3",
        "-c",
        CULL_ONCE.format(timeout=IDLE_SECONDS),
    )

    wait_until("bob's idle server is culled", lambda: kubectl.pod(bob.pod) is None, 60)
    assert kubectl.pod(alice.pod)["status"]["phase"] == "Running"


def test_V4_the_stack_culls_after_an_hour(kubectl: Kubectl):
    hub_pod = kubectl("-n", NAMESPACE, "get", "pods", "-l", "component=hub", "-o", "name").strip()
    running = kubectl("-n", NAMESPACE, "exec", hub_pod, "--", "ps", "axww", "-o", "args")
    culler = next(line for line in running.splitlines() if "jupyterhub_idle_culler" in line)
    assert "--timeout=3600" in culler
    assert "--cull-every=600" in culler
