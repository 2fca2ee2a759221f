"""A real Slurm on loopback: munge, slurmctld, some virtual nodes and slurmrestd with JWT, all ended again.

Nothing outside its own temporary folder is written and no system user is made: jobs run as ``daemon``, slurmrestd as ``nobody``
(it refuses root and the Slurm user). No time is lost to systemd: the daemons run in the foreground as children of the test.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support import absent, require

JOB_USER = "daemon"
REST_USER = "nobody"
_BINARIES = ("munged", "slurmctld", "slurmd", "slurmrestd", "scontrol", "squeue", "sbatch", "runuser")
_CONF = """\
ClusterName=vpptest
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/run/munge.socket
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={base}/jwt.key
SlurmctldPort={ctld_port}
StateSaveLocation={base}/state
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdSpoolDir={base}/spool/%n
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=2
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=SUSPEND,GANG
SlurmdParameters=config_overrides
{nodes}
PartitionName=flex Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=SUSPEND OverSubscribe=FORCE:1
PartitionName=firm Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF OverSubscribe=FORCE:1
"""


class SlurmServer:
    """One running cluster; its daemons are children of this process and can be ended and started one by one."""

    def __init__(self, base: Path, nodes: int, cpus: int) -> None:
        self.base = base
        self.nodes = tuple(f"node{i}" for i in range(1, nodes + 1))
        self.conf = base / "slurm.conf"
        self.rest_port = steady_port()
        self.url = f"http://127.0.0.1:{self.rest_port}"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._write_files(cpus)

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every daemon and return when all nodes are idle and the REST port answers."""
        own = {"key": "munge/munge.key", "socket": "run/munge.socket", "seed": "munge/seed", "log": "munge/munged.log"}
        files = [f"--{what}{'' if what == 'socket' else '-file'}={self.base}/{path}" for what, path in own.items()]
        pid_file = f"--pid-file={self.base}/run/munged.pid"
        self._spawn("munged", "runuser", "-u", "munge", "--", "munged", "--foreground", pid_file, *files)
        until(lambda: (self.base / "run/munge.socket").exists(), "munged listens")
        self.start_controller()
        for node in self.nodes:
            self._spawn(node, "slurmd", "-D", "-f", str(self.conf), "-N", node)
        until(lambda: self._idle_nodes() == len(self.nodes), "all nodes are idle")
        self.start_rest()

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        until(lambda: "UP" in self.run("scontrol", "ping", check=False), "slurmctld answers")

    def start_rest(self) -> None:
        """Start slurmrestd and wait for its port."""
        program = ("slurmrestd", "-a", "rest_auth/jwt", "-s", "openapi/v0.0.38,openapi/v0.0.37")
        self._spawn("slurmrestd", "runuser", "-u", REST_USER, "--", *program, f"127.0.0.1:{self.rest_port}")
        until(lambda: _listens(self.rest_port), "slurmrestd listens")

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one daemon (``slurmrestd``, ``slurmctld``, ``munged`` or a node) and what it started itself."""
        daemon = self._daemons.pop(name)
        for process in _family(daemon.pid):
            if not _is_runuser(process):  # it ends by itself, after it has seen its child end
                _signal(process, how)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            for process in _family(daemon.pid):
                _signal(process, signal.SIGKILL)
            daemon.wait(10)

    def stop(self) -> None:
        """Cancel all jobs, end every daemon and whatever still runs under this cluster's configuration."""
        if "slurmctld" in self._daemons:
            for state in ("PENDING", "RUNNING", "SUSPENDED"):  # nothing may start in the place of what is cancelled
                self.run("scancel", "--state", state, check=False)
        for name in ["slurmrestd", *self.nodes, "slurmctld", "munged"]:
            if name in self._daemons:
                self.end(name)
        for process in self._remains():
            _signal(process, signal.SIGKILL)

    def clear(self) -> None:
        """Cancel every job and open every partition: the next test finds the cluster as it was started."""
        for how in (("--state=PENDING",), ("-s", "CONT", "--full"), ()):
            jobs = self.run("squeue", "-h", "-o", "%A").split()
            if jobs:
                self.run("scancel", *how, *jobs, check=False)
        for partition in ("flex", "firm"):
            self.run("scontrol", "update", f"PartitionName={partition}", "State=UP")
        until(lambda: not self.run("squeue", "-h"), "the queue is empty")

    # ---- use -------------------------------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True, user: str = "") -> str:
        """Run a Slurm command against this cluster, as root or as ``user``, and return what it printed."""
        prefix = ("runuser", "-u", user, "--") if user else ()
        done = subprocess.run(
            [*prefix, *command], env=self.environment, cwd="/", capture_output=True, text=True, timeout=30, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def token_file(self, user: str = "root", lifespan_s: int = 3600) -> Path:
        """Mint a JWT for ``user`` and return the file that holds it."""
        token = self.run("scontrol", "token", f"username={user}", f"lifespan={lifespan_s}").split("=", 1)[1]
        path = self.base / f"token.{user}"
        path.write_text(token)
        path.chmod(0o600)
        return path

    def submit(self, script: str, *options: str, user: str = JOB_USER) -> int:
        """Submit a batch script (bash) and return the job's id."""
        path = self.base / "out" / f"{secrets.token_hex(6)}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        output = ("-o", str(self.base / "out" / "%j.log"), "-D", str(self.base / "out"))
        return int(self.run("sbatch", "--parsable", *output, *options, str(path), user=user).split(";")[0])

    def show(self, job: int) -> dict[str, str]:
        """Return what ``scontrol show job`` says, by field."""
        text = self.run("scontrol", "-o", "show", "job", str(job))
        return dict(re.findall(r"(?:^| )(\w[\w/:]*)=(.*?)(?= \w[\w/:]*=|$)", text))

    def state(self, job: int) -> str:
        """Return the state of a job; a stopped one says STOPPED."""
        return self.run("squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T", check=False)

    def wait(self, job: int, *states: str, for_s: float = 30.0) -> None:
        """Wait until a job is in one of the states."""
        until(lambda: self.state(job) in states, f"job {job} is {' or '.join(states)}", for_s, lambda: self.state(job))

    def processes(self, job: int) -> list[psutil.Process]:
        """Return the processes of a job's own script (not Slurm's)."""
        mark = str(job)
        return [p for p in psutil.process_iter() if _environment(p).get("SLURM_JOB_ID") == mark and self._ours(p)]

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _write_files(self, cpus: int) -> None:
        for folder in ("state", "log", "run", "out", "munge", *(f"spool/{node}" for node in self.nodes)):
            (self.base / folder).mkdir(parents=True)
        for key in ("munge/munge.key", "jwt.key"):
            (self.base / key).write_bytes(secrets.token_bytes(1024 if "munge" in key else 32))
            (self.base / key).chmod(0o600)
        (self.base / "munge").chmod(0o700)
        for folder in ("run", "out"):
            (self.base / folder).chmod(0o1777)
        for path in (self.base / "munge", self.base / "munge/munge.key"):
            shutil.chown(path, "munge", "munge")
        for folder in ("state", "log", "jwt.key"):
            shutil.chown(self.base / folder, "slurm", "slurm")
        shape = f"NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN"
        nodes = "\n".join(f"NodeName={node} {shape} Port={steady_port()}" for node in self.nodes)
        self.conf.write_text(_CONF.format(base=self.base, ctld_port=steady_port(), nodes=nodes))

    def _spawn(self, name: str, *command: str) -> None:
        environment = {**self.environment, "SLURM_JWT": "daemon"} if name == "slurmrestd" else self.environment
        with (self.base / "log" / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _idle_nodes(self) -> int:
        return int(self.run("sinfo", "-h", "-p", "flex", "-t", "idle", "-o", "%D", check=False) or 0)

    def _ours(self, process: psutil.Process) -> bool:
        return _environment(process).get("SLURM_CONF") == str(self.conf)

    def _remains(self) -> list[psutil.Process]:
        """Return what is left of this cluster: job processes by their environment, slurmstepd (it wipes its own) by its files."""
        return [p for p in psutil.process_iter() if p.pid != os.getpid() and (self._ours(p) or self._has_open(p))]

    def _has_open(self, process: psutil.Process) -> bool:
        try:
            return process.name() == "slurmstepd" and any(
                Path(file.path).is_relative_to(self.base) for file in process.open_files()
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False


@contextmanager
def running_slurm(nodes: int = 2, cpus: int = 4) -> Iterator[SlurmServer]:
    """Run a cluster of ``nodes`` virtual nodes; skip where Slurm or root is missing (fail where CI=true)."""
    for binary in _BINARIES:
        require(binary, "the Slurm adapter is tested against a real Slurm")
    if os.geteuid() != 0:
        absent("a real Slurm needs root: munge and slurmd run jobs as other users")
    base = Path(tempfile.mkdtemp(prefix="vppd-slurm-", dir="/tmp"))
    base.chmod(0o755)
    server = SlurmServer(base, nodes, cpus)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


def until(
    claim: Callable[[], bool], what: str, for_s: float = 30.0, seen: Callable[[], object] = lambda: "no more is known"
) -> None:
    """Wait until ``claim`` holds; fail with ``what`` and what was ``seen`` when it does not in time."""
    deadline_s = time.monotonic() + for_s
    while not claim():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {for_s:g} s: {what}; seen: {seen()}")
        time.sleep(0.05)


def steady_port() -> int:
    """Return a port on loopback that is free, and stays so while its server is down: none that connections are given to go out by."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _listens(port: int) -> bool:
    return any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in psutil.net_connections("tcp"))


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, how: signal.Signals) -> None:
    try:
        process.send_signal(how)
    except psutil.NoSuchProcess:
        return


def _is_runuser(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "runuser")
    except psutil.NoSuchProcess:
        return True


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return {}
