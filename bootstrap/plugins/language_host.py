"""pulumi-language-python for machines where the official binary cannot be had.

Runs the program, policy packs and Python plug-ins in the project's virtual environment, as the
official host does (pulumi 3.259.0, sdk/python/cmd/pulumi-language-python), for the `pip` toolchain.
Code generation stays with the official host: this one answers "not implemented".
"""

# ruff: noqa: N802 - the protocol names the methods

import base64
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    analyzer_pb2,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
)

from bootstrap.plugins import nursery
from bootstrap.plugins.process import UNLIMITED, engine_address, parent_of, serve

T = TypeVar("T")

BAIL_EXIT = 32
"""The program failed and has told the user why (`pulumi-language-python-exec`)."""

STOP_SECONDS = 5.0
NO_PLUGIN = ("pulumi-policy", "pulumi-esc-sdk")
"""Packages named `pulumi-…` that have neither a plug-in nor a file that says so."""

LIST_PACKAGES = """
import importlib.metadata, importlib.util, json, os, re
def plain(name): return re.sub("[-_.]+", "-", name).lower()
def plugin(name, dist):
    files = dist.read_text("RECORD") or ""
    if not name.startswith("pulumi-") and "pulumi-plugin.json" not in files:
        return None
    spec = importlib.util.find_spec(dist.metadata["Name"].replace("-", "_"))
    for place in spec and spec.submodule_search_locations or ():
        path = os.path.join(place, "pulumi-plugin.json")
        if os.path.isfile(path):
            return json.load(open(path))
found = []
for dist in importlib.metadata.distributions():
    name = plain(dist.metadata["Name"] or "")
    needs = [plain(re.match("[A-Za-z0-9._-]+", need)[0]) for need in dist.requires or []
             if "extra ==" not in need]
    found.append(dict(name=name, version=dist.version, plugin=plugin(name, dist), needs=needs))
print(json.dumps(found))
"""
"""Run by the program's own Python, which need not be this one."""


class HostError(Exception):
    """Something that the person who runs `pulumi` has to change."""


@dataclass(frozen=True)
class Toolchain:
    """The Python that a program runs with: the `virtualenv` option's, else the one on PATH."""

    root: Path
    virtualenv: str

    @classmethod
    def of(cls, info: Any, plugin: bool = False) -> "Toolchain":
        options = {key: value.string_value for key, value in info.options.fields.items()}
        chosen = options.get("toolchain", "pip")
        if chosen != "pip":
            raise HostError(
                f'Pulumi.yaml: the option toolchain is "{chosen}"; this language host knows pip '
                "alone, so remove the option or install the official pulumi-language-python"
            )
        if checker := options.get("typechecker"):
            raise HostError(
                f'Pulumi.yaml: the option typechecker is "{checker}"; this language host has none, '
                "so remove the option (`make check` runs mypy)"
            )
        # A plug-in never runs in whatever Python happens to be on PATH.
        virtualenv = options.get("virtualenv", "venv" if plugin else "")
        return cls(Path(info.root_directory or info.program_directory), virtualenv)

    @property
    def folder(self) -> Path:
        return self.root / self.virtualenv

    @property
    def python(self) -> str:
        if not self.virtualenv:
            wanted = os.environ.get("PULUMI_PYTHON_CMD")
            found = shutil.which(wanted or "python3") or (not wanted and shutil.which("python"))
            if not found:
                raise HostError(f"no {wanted or 'python3'} on PATH; install Python 3.11 or newer")
            return found
        python = self.folder / "bin" / "python"
        if not python.is_file():
            raise HostError(
                f'Pulumi.yaml: the option virtualenv is "{self.virtualenv}", and {self.folder} is '
                "no virtual environment; run `pulumi install` to make it"
            )
        return str(python)

    @property
    def environment(self) -> dict[str, str]:
        """The process environment with the virtual environment activated."""
        env = dict(os.environ)
        if self.virtualenv:
            env.pop("PYTHONHOME", None)
            env["VIRTUAL_ENV"] = str(self.folder)
            env["PATH"] = os.pathsep.join([str(self.folder / "bin"), env.get("PATH", "")])
        return env

    def packages(self) -> list[dict[str, Any]]:
        """Every installed distribution: name, version, pulumi-plugin.json if any, what it needs."""
        done = subprocess.run(
            [self.python, "-c", LIST_PACKAGES],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise HostError(f"{self.python} cannot list its packages: {done.stderr.strip()}")
        return list(json.loads(done.stdout))


STAGES = {"a": "alpha", "b": "beta", "rc": "rc"}


def plugin_version(version: str) -> str | None:
    """A Python version as a plug-in's: `1.2` is `v1.2.0`, `1.2.3rc4` is `v1.2.3-rc.4`.

    None for versions that have no such form (epochs, local versions).
    """
    match = re.fullmatch(
        r"(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?", version
    )
    if match is None:
        return None
    release, stage, number, post, dev = match.groups()
    parts = release.split(".")
    result = "v" + ".".join(parts + ["0"] * (3 - len(parts)))
    if stage:
        result += f"-{STAGES[stage]}.{number}"
    if post or dev:
        result += "+" + (f"post{post}" if post else "") + (f"dev{dev}" if dev else "")
    return result


def required_package(package: Mapping[str, Any]) -> plugin_pb2.PackageDependency | None:
    """The plug-in that an installed distribution needs, if it needs one."""
    name, plugin = package["name"], package["plugin"]
    if name in NO_PLUGIN or (plugin is None and not name.startswith("pulumi-")):
        return None
    plugin = {"resource": True} if plugin is None else plugin
    if not plugin.get("resource"):
        return None
    version = plugin.get("version") or plugin_version(package["version"])
    if not version:
        return None
    dependency = plugin_pb2.PackageDependency(
        name=plugin.get("name") or name.removeprefix("pulumi-"),
        version=version if version.startswith("v") else f"v{version}",
        kind="resource",
        server=plugin.get("server", ""),
    )
    if parameter := plugin.get("parameterization"):
        dependency.parameterization.name = parameter["name"]
        dependency.parameterization.version = parameter["version"]
        dependency.parameterization.value = base64.b64decode(parameter["value"])
    return dependency


class Children:
    """The processes that this host has started, so that none outlives it."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def start(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        with self._lock:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
            self._running.add(process)
        return process

    def ended(self, process: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            self._running.discard(process)

    def stop(self) -> None:
        """Ends all of them: asked first, killed after `STOP_SECONDS`.

        By SIGTERM, where the official host interrupts: a KeyboardInterrupt's traceback would stand
        beside the reason for which the engine gave up.
        """
        with self._lock:
            running = list(self._running)
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def stop_one(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        timer = threading.Timer(STOP_SECONDS, process.kill)
        timer.daemon = True
        timer.start()


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    def __init__(self, engine: str, executor: Path):
        self.engine = engine
        self.executor = executor
        self.children = Children()

    def Handshake(self, request, context):  # type: ignore[no-untyped-def]
        self.engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request, context):  # type: ignore[no-untyped-def]
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def Cancel(self, request, context):  # type: ignore[no-untyped-def]
        self.children.stop()
        return empty_pb2.Empty()

    def About(self, request, context):  # type: ignore[no-untyped-def]
        toolchain = told(context, lambda: Toolchain.of(request.info))
        python = told(context, lambda: toolchain.python)
        code = "import platform; print(platform.python_version())"
        version = subprocess.check_output([python, "-c", code], text=True).strip()
        return language_pb2.AboutResponse(
            executable=python,
            version=version,
            metadata={"toolchain": "pip", "host": "mlhub bootstrap/plugins/language_host.py"},
        )

    def GetRequiredPackages(self, request, context):  # type: ignore[no-untyped-def]
        packages = told(context, lambda: Toolchain.of(request.info).packages())
        required = [required_package(package) for package in packages]
        return language_pb2.GetRequiredPackagesResponse(packages=[r for r in required if r])

    def GetProgramDependencies(self, request, context):  # type: ignore[no-untyped-def]
        packages = told(context, lambda: Toolchain.of(request.info).packages())
        if not request.transitiveDependencies:
            needed = {need for package in packages for need in package["needs"]}
            packages = [package for package in packages if package["name"] not in needed]
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=package["name"], version=package["version"])
                for package in packages
            ]
        )

    def RuntimeOptionsPrompts(self, request, context):  # type: ignore[no-untyped-def]
        return language_pb2.RuntimeOptionsResponse()

    def Template(self, request, context):  # type: ignore[no-untyped-def]
        return language_pb2.TemplateResponse()

    def InstallDependencies(self, request, context):  # type: ignore[no-untyped-def]
        toolchain = told(context, lambda: Toolchain.of(request.info, request.is_plugin))
        folder = Path(request.info.program_directory or request.directory)
        steps: list[list[str]] = []
        if toolchain.virtualenv and not (toolchain.folder / "bin" / "python").is_file():
            steps.append([sys.executable, "-m", "venv", str(toolchain.folder)])
        requirements = folder / "requirements.txt"
        if requirements.is_file():
            steps.append(["", "-m", "pip", "install", "-r", str(requirements)])
        for step in steps:
            command = [step[0] or told(context, lambda: toolchain.python), *step[1:]]
            code = yield from self._stream(
                context, command, language_pb2.InstallDependenciesResponse,
                cwd=folder, env=toolchain.environment,
            )  # fmt: skip
            if code:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION,
                              f"`{' '.join(command)}` ended with exit code {code}")  # fmt: skip

    def Run(self, request, context):  # type: ignore[no-untyped-def]
        if request.attach_debugger:
            return language_pb2.RunResponse(
                error="this language host attaches no debugger; run without --attach-debugger"
            )
        toolchain = told(context, lambda: Toolchain.of(request.info))
        command = [
            told(context, lambda: toolchain.python), "-u", str(self.executor),
            *run_arguments(request, self.engine),
        ]  # fmt: skip
        env = toolchain.environment | {
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        # The engine reads this process's own streams, so the program writes straight to them.
        process = self.children.start(command, env=env)
        context.add_callback(lambda: stop_one(process))
        code = process.wait()
        self.children.ended(process)
        if code == 0:
            return language_pb2.RunResponse()
        if code == BAIL_EXIT:
            return language_pb2.RunResponse(bail=True)
        if code < 0:
            return language_pb2.RunResponse(
                error=f"program ended by signal {signal.Signals(-code).name}"
            )
        return language_pb2.RunResponse(error=f"program exited with non-zero exit code: {code}")

    def RunPlugin(self, request, context):  # type: ignore[no-untyped-def]
        folder, analyzer = request.info.program_directory, request.kind == "analyzer"
        toolchain = told(context, lambda: Toolchain.of(request.info, plugin=not analyzer))
        python = told(context, lambda: toolchain.python)
        env = toolchain.environment | dict(entry.split("=", 1) for entry in request.env)
        if analyzer:
            command = [python, "-u", "-m", "pulumi.policy", *request.args, folder]
            yield from self._run_policy_pack(context, command, folder, env)
            return
        if (Path(folder) / "__main__.py").is_file():
            command = [python, "-u", folder, *request.args]
        else:
            name = told(context, lambda: project_name(Path(folder)))
            command = [python, "-u", "-m", "pulumi.run.plugin", name, *request.args]
        code = yield from self._stream(
            context, command, language_pb2.RunPluginResponse, cwd=request.pwd, env=env
        )
        yield language_pb2.RunPluginResponse(exitcode=code)

    def _run_policy_pack(
        self, context: Any, command: Sequence[str], folder: str, env: dict[str, str]
    ) -> Iterator[language_pb2.RunPluginResponse]:
        """A policy pack reads the stack from its environment, which is set before it starts.

        So the engine gets the port of a stand-in, which takes the stack's configuration, and the
        pack behind it is started with that (as the official host does).
        """
        stand_in = PolicyStandIn()
        context.add_callback(stand_in.close)
        yield language_pb2.RunPluginResponse(stdout=f"{stand_in.port}\n".encode())
        configured = stand_in.configured()
        code = yield from self._stream(
            context, command, language_pb2.RunPluginResponse,
            first_line=stand_in.attach, cwd=folder, env=env | configured,
        )  # fmt: skip
        stand_in.close()
        yield language_pb2.RunPluginResponse(exitcode=code)

    def _stream(
        self,
        context: Any,
        command: Sequence[str],
        message: Callable[..., Any],
        first_line: Callable[[bytes], None] | None = None,
        **options: Any,
    ) -> Generator[Any, None, int]:
        """Runs `command` and gives its output as it comes; returns its exit code.

        `first_line` takes the first line of standard output instead of the reader.
        """
        process = self.children.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        context.add_callback(lambda: stop_one(process))
        lines: queue.Queue[tuple[str, bytes] | None] = queue.Queue()

        def pump(stream: Any, name: str) -> None:
            for line in iter(stream.readline, b""):
                lines.put((name, line))
            lines.put(None)

        for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr")):
            threading.Thread(target=pump, args=(stream, name), daemon=True).start()
        open_streams = 2
        while open_streams:
            item = lines.get()
            if item is None:
                open_streams -= 1
            elif first_line is not None and item[0] == "stdout":
                first_line(item[1])
                first_line = None
            else:
                yield message(**{item[0]: item[1]})
        code = process.wait()
        self.children.ended(process)
        return code


def run_arguments(request: Any, engine: str) -> list[str]:
    """The executor's command line. Empty settings are left out."""
    settings = {
        "monitor": request.monitor_address,
        "engine": engine,
        "project": request.project,
        "root_directory": request.info.root_directory,
        "stack": request.stack,
        "pwd": request.pwd,
        "dry_run": str(request.dryRun).lower(),
        "parallel": str(request.parallel),
        "organization": request.organization,
    }
    arguments = [part for key, value in settings.items() if value for part in (f"--{key}", value)]
    return [*arguments, request.info.entry_point or ".", *request.args]


def project_name(folder: Path) -> str:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        return str(project["name"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise HostError(
            f"{folder} is no plug-in: it has neither __main__.py nor a pyproject.toml with a name"
        ) from None


def told(context: Any, ask: Callable[[], T]) -> T:
    """`ask()`, with a `HostError` given to the engine as the answer."""
    try:
        return ask()
    except HostError as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        raise


ANALYZER = "/pulumirpc.Analyzer/"


class PolicyStandIn(grpc.GenericRpcHandler):
    """An analyzer that waits for the stack's configuration and then passes every call on."""

    def __init__(self) -> None:
        self._configuration: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._known: bytes | None = None
        self._attached = threading.Event()
        self._channel: Any = None
        self._server = grpc.server(ThreadPoolExecutor(16), options=UNLIMITED)
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details: Any) -> Any:
        method = details.method
        if not method.startswith(ANALYZER):
            return None
        own = {"Handshake": self._handshake, "ConfigureStack": self._configure}
        answer = own.get(method.removeprefix(ANALYZER), self._pass_on(method))
        return grpc.unary_unary_rpc_method_handler(answer)

    def configured(self) -> dict[str, str]:
        """Waits for the configuration; empty when the engine asks for something else first."""
        self._known = self._configuration.get()
        if self._known is None:
            return {}
        stack = analyzer_pb2.AnalyzerStackConfigureRequest.FromString(self._known)
        env = {
            "PULUMI_ORGANIZATION": stack.organization,
            "PULUMI_PROJECT": stack.project,
            "PULUMI_STACK": stack.stack,
            "PULUMI_DRY_RUN": str(stack.dry_run).lower(),
            "PULUMI_CONFIG": json.dumps(dict(stack.config)),
        }
        return {key: value for key, value in env.items() if value}

    def attach(self, port_line: bytes) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{int(port_line)}", options=UNLIMITED)
        if self._known is not None:
            call = self._channel.unary_unary(ANALYZER + "ConfigureStack")
            try:
                call(self._known)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                    raise
        self._attached.set()

    def close(self) -> None:
        self._offer(None)
        self._attached.set()
        self._server.stop(grace=None)

    def _offer(self, configuration: bytes | None) -> None:
        with contextlib.suppress(queue.Full):
            self._configuration.put_nowait(configuration)

    def _handshake(self, request: bytes, context: Any) -> bytes:
        return analyzer_pb2.AnalyzerHandshakeResponse().SerializeToString()

    def _configure(self, request: bytes, context: Any) -> bytes:
        self._offer(request)
        return analyzer_pb2.AnalyzerStackConfigureResponse().SerializeToString()

    def _pass_on(self, method: str) -> Callable[[bytes, Any], bytes]:
        def call(request: bytes, context: Any) -> bytes:
            self._offer(None)
            self._attached.wait()
            if self._channel is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the policy pack did not start")
            try:
                return bytes(self._channel.unary_unary(method)(request))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return call


def run(executor: str) -> None:
    arguments = sys.argv[1:]
    if {"-version", "--version"} & set(arguments):
        print(metadata.version("pulumi"))
        return
    nursery.keep(parent_of(arguments))
    host = Host(engine_address(arguments), Path(executor))

    def add(server: grpc.Server) -> None:
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)

    serve(add, on_stop=host.children.stop)
