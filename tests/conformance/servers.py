# SPDX-License-Identifier: MIT
"""
The servers that can be tested, and how each is started.

A server is started in a *setting*, and cases name the one they need:

    main       the main image, read-write unless the run is read-only
    read-only  the main image, read-only
    tcp        the main image on 127.0.0.1 instead of a unix socket
    two        two exports, alpha and beta
    huge       an empty image of 8 GiB
    odd        an image whose size is no multiple of 512
    odd-raw    the same as a raw image
    faulty     an image with an unreadable place at FAULT_START, read-only
    overlay    an empty image over a base with data
    small      the main image; its file may grow by about 1 MiB only
    file       the main image from a file, even where main has none
    aligned    the main image with a minimum block size, where there is one
    tls        the main image, and TLS is a must
    selective  two exports, alpha with and without TLS, beta only with it
    tebibytes  an empty image of 16 TiB
    resize     the main image; clients may change its size

A server that cannot be put in a setting says so by raising Unoffered with
the reason, which the report shows.
"""

import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import time

import wire
from images import IMAGES, FAULT_START, SCRATCH_START
from launch import SANITIZER_MARKS, wait_until
from wire import MIB

START_SECONDS = 10
STOP_SECONDS = 20
GROWTH_BYTES = MIB
LOG_LINES = 4

TLS_SETTINGS = ("tls", "selective")
SETTING_IMAGES = {"two": ["alpha", "beta"], "selective": ["alpha", "beta"],
                  "huge": ["huge"], "odd": ["odd"], "odd-raw": ["odd"],
                  "faulty": ["faulty"], "overlay": ["overlay"],
                  "tebibytes": ["tebibytes"]}


class Unoffered(Exception):
    """The server has no such thing; the text says what."""


class StartFailed(Exception):
    """The server did not come up."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemon:
    """
    A server that insists on leaving its terminal: what Popen is for others.
    We adopt it, so that its exit status comes to us.
    """

    PR_SET_CHILD_SUBREAPER = 36

    def __init__(self, command, pid_path, **options):
        ctypes.CDLL(None).prctl(self.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        status = subprocess.run(command, **options).returncode
        if status != 0 or not wait_until(lambda: os.path.exists(pid_path)
                                         and os.path.getsize(pid_path),
                                         START_SECONDS):
            raise StartFailed(f"{' '.join(command)}: exit status {status}")
        with open(pid_path) as file:
            self.pid = int(file.read())
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds=START_SECONDS):
        if not wait_until(lambda: self.poll() is not None, seconds):
            raise subprocess.TimeoutExpired("daemon", seconds)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """It leads a process group, with a process for each client."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
            while os.waitpid(-self.pid, 0)[0] != self.pid:
                pass
        except (ProcessLookupError, ChildProcessError):
            pass
        self.returncode = self.returncode or -signal.SIGKILL


class Running:
    """One server process in one setting."""

    def __init__(self, server, setting, directory):
        self.server = server
        self.setting = setting
        self.directory = directory
        names = SETTING_IMAGES.get(setting, ["main"])
        self.image = IMAGES[names[0]]
        self.images = {name: IMAGES[name] for name in names}
        self.paths = {}
        self.name = server.export_name(names[0])
        self.address = os.path.join(directory, "sock")
        if setting == "tcp":
            self.address = ("127.0.0.1", free_port())
        self.log_path = os.path.join(directory, "log")
        self.process = None
        self.idle_connections = 0
        self.size_limit = None

    @property
    def port(self):
        return self.address[1]

    def has_tls(self):
        return self.setting in TLS_SETTINGS or self.server.over_tls

    def copy(self, name, form):
        """A private copy of the image called name, for this server."""
        path = self.server.store.copy(name, form, self.directory)
        if IMAGES[name].base:
            self.server.store.copy(IMAGES[name].base, form, self.directory)
        self.paths[name] = path
        return path

    def start(self):
        command = self.server.command(self)
        log = open(self.log_path, "ab")
        with log:
            self.process = self.server.spawn(
                self, command, cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=self.limit_file_size)
        if not wait_until(self.accepts, START_SECONDS):
            self.kill()
            raise StartFailed(f"{' '.join(command)}: {self.log_tail()}")
        self.server.prepare(self)
        with wire.Client(self.address) as client:
            client.greeting()
        time.sleep(0.1)
        self.idle_connections = self.connections()

    def limit_file_size(self):
        """In the child: caps the files it may write, if the setting says so."""
        if self.size_limit is None:
            return
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE,
                           (self.size_limit, self.size_limit))

    def accepts(self):
        if not self.alive():
            raise StartFailed(f"exit status {self.process.returncode}: "
                              f"{self.log_tail()}")
        try:
            with wire.Client(self.address) as client:
                client.greeting()
            return True
        except (OSError, wire.WireError):
            return False

    def alive(self):
        return self.process.poll() is None

    def connections(self):
        """
        How many sockets the kernel holds on the server's address.  Unlike a
        count of its file descriptors this sees registered files too.
        """
        if isinstance(self.address, str):
            with open("/proc/net/unix") as table:
                return sum(line.rstrip("\n").endswith(" " + self.address)
                           for line in table)
        local = f":{self.port:04X}"
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
        time_wait = "06"
        return sum(row[1].endswith(local) and row[3] != time_wait
                   for row in rows)

    def drained(self):
        """Whether all connections but the listening socket are gone."""
        return self.connections() <= self.idle_connections

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait(self, seconds=STOP_SECONDS):
        """The exit status, or None if it still runs after that long."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self):
        """Ends it as a person would; returns what was wrong with that."""
        if not self.alive():
            return None
        self.terminate()
        status = self.wait()
        if status is None:
            self.kill()
            return f"still running {STOP_SECONDS} s after SIGTERM"
        if status not in self.server.clean_exits:
            return f"exit status {status} after SIGTERM: {self.log_tail()}"
        return self.sanitizer_report()

    def remove(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self):
        with open(self.log_path, "rb") as file:
            return file.read()

    def log_tail(self):
        text = self.log().decode("utf-8", "replace").strip()
        return "\n".join(text.splitlines()[-LOG_LINES:])

    def sanitizer_report(self):
        log = self.log()
        for mark in SANITIZER_MARKS:
            at = log.find(mark.encode())
            if at >= 0:
                return log[at:at + 1000].decode("utf-8", "replace")
        return None

    def read_image(self, offset, length):
        """What the image file holds, as other tools read it."""
        path = self.paths[self.image.name]
        raw = os.path.join(self.directory, "readback.raw")
        subprocess.run(["qemu-img", "convert", "-U", "-f",
                        self.server.image_form, "-O", "raw", path, raw],
                       check=True)
        with open(raw, "rb") as file:
            file.seek(offset)
            data = file.read(length)
        os.unlink(raw)
        return data

    def check_image(self):
        """What `qemu-img check` finds beyond leaks, or None."""
        if self.server.image_form != "qcow2":
            return None
        check = subprocess.run(
            ["qemu-img", "check", "-U", "-f", "qcow2",
             self.paths[self.image.name]],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        leaks_only = 3
        if check.returncode in (0, leaks_only):
            return None
        return check.stdout.decode("utf-8", "replace")[-600:]


class Server:
    """
    What all servers have in common.

    promises: needs (see case.py) whose absence is a failure, not a skip.
    lacks: needs it will never meet, each with the reason.
    rules_of_qnbd: whether the cases for our own limits apply.
    closes: whether it closes a connection when the client says it is done; if
        not, only the cases of that fail, and not all that come to an end.
    """

    title = None
    image_form = None
    clean_exits = (0,)
    promises = frozenset()
    lacks = {}
    rules_of_qnbd = False
    closes = True
    # Whether all settings are to be served with TLS.
    over_tls = False

    def __init__(self, path, store, read_only):
        self.path = path
        self.store = store
        self.read_only = read_only

    @classmethod
    def find(cls):
        return shutil.which(cls.title)

    def version(self):
        output = subprocess.run([self.path, "--version"],
                                stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT).stdout
        lines = output.decode("utf-8", "replace").splitlines()
        return lines[0] if lines else "unknown version"

    def export_name(self, image_name):
        return image_name.encode()

    def serves_read_only(self, setting):
        return self.read_only or setting in ("read-only", "faulty")

    def command(self, running):
        """The command line that serves the setting; or raises Unoffered."""
        raise NotImplementedError

    def spawn(self, running, command, **options):
        return subprocess.Popen(command, **options)

    def prepare(self, running):
        """Called once it listens, before any case."""


class Qnbd(Server):
    title = "qnbd"
    image_form = "qcow2"
    rules_of_qnbd = True
    promises = frozenset(
        "structured extended meta depth df multi_conn flush fua "
        "cache".split())
    promises_writable = frozenset("write trim zeroes fast_zero".split())

    def __init__(self, path, store, read_only):
        super().__init__(path, store, read_only)
        if not read_only:
            self.promises = self.promises | self.promises_writable

    def command(self, running):
        command = [self.path, "serve"]
        if running.setting == "tcp":
            command += ["-b", "127.0.0.1", "-p", str(running.port)]
        else:
            command += ["-u", running.address]
        if self.serves_read_only(running.setting):
            command.append("-r")
        if running.setting == "small" and self.read_only:
            raise Unoffered("nothing is written in a read-only run")
        if running.has_tls():
            command += ["--tls", os.path.join(self.store.pki(), "server")]
        if running.setting == "selective":
            command += ["--tls-optional", "alpha"]
        if running.setting == "resize":
            command.append("--allow-resize")
        form = "raw" if running.setting == "odd-raw" else "qcow2"
        command += ["-f", form]
        for name in running.images:
            path = running.copy(name, form)
            command.append(f"{name}={path}" if len(running.images) > 1
                           or form == "raw" else path)
        if running.setting == "small":
            path = running.paths["main"]
            running.size_limit = os.path.getsize(path) + GROWTH_BYTES
        return command


class Bare(Server):
    """The raw-file server of bench/: the same protocol code, and no limits."""

    title = "bare"
    image_form = "raw"
    # It is a tool for measuring, and is ended by the signal.
    clean_exits = (0, -signal.SIGTERM)

    @classmethod
    def find(cls):
        return None

    def version(self):
        return "bench/bare"

    def command(self, running):
        if running.setting not in ("main", "huge", "odd", "odd-raw", "small",
                                   "file", "aligned"):
            raise Unoffered("bench/bare serves one raw file read-write on a "
                            "unix socket")
        path = running.copy(running.image.name, "raw")
        if running.setting == "small":
            running.size_limit = SCRATCH_START + GROWTH_BYTES
        return [self.path, running.address, path]


class QemuNbd(Server):
    title = "qemu-nbd"
    image_form = "qcow2"
    lacks = {"empty_name": "it serves the one name given by -x"}

    def command(self, running):
        if running.setting in ("two", "selective"):
            raise Unoffered("it serves one export only")
        form = "raw" if running.setting.startswith("odd") else "qcow2"
        path = running.copy(running.image.name, form)
        command = [self.path, "-t", "-e", "2000", "-f", form,
                   "--discard=unmap", "-A", "-x", running.image.name]
        if running.has_tls():
            directory = os.path.join(self.store.pki(), "server")
            command += ["--object", "tls-creds-x509,id=tls,endpoint=server,"
                        f"verify-peer=yes,dir={directory}",
                        "--tls-creds", "tls"]
        if running.setting == "tcp":
            command += ["-b", "127.0.0.1", "-p", str(running.port)]
        else:
            command += ["-k", running.address]
        if self.serves_read_only(running.setting):
            command.append("-r")
        if running.setting == "small":
            running.size_limit = os.path.getsize(path) + GROWTH_BYTES
        return command + [path]


# Where nbdkit serves from memory.
MEMORY_SETTINGS = ("main", "tcp", "huge", "tebibytes", "resize")


class Nbdkit(Server):
    """The memory plugin where it serves, the file or eval plugin elsewhere."""

    title = "nbdkit"
    image_form = "raw"
    # 1.42 with several threads waits until the client closes.
    closes = False
    def command(self, running):
        command = [self.path, "--foreground", "--exit-with-parent"]
        if running.setting == "tcp":
            command += ["-i", "127.0.0.1", "-p", str(running.port)]
        else:
            command += ["-U", running.address]
        if self.serves_read_only(running.setting):
            command.append("-r")
        if running.setting == "selective":
            raise Unoffered("TLS is for all exports or none")
        if running.has_tls():
            command += ["--tls=require", "--tls-verify-peer",
                        "--tls-certificates="
                        + os.path.join(self.store.pki(), "server")]
        command.append("--filter=exportname")
        return (command + self.plugin(running) + ["exportname-strict=true"]
                + ["exportname-list=explicit"]
                + [f"exportname={name}" for name in running.images]
                + ["exportname=", f"default-export={running.image.name}"])

    def plugin(self, running):
        setting = running.setting
        if setting == "overlay":
            raise Unoffered("it knows no backing files")
        if (setting in MEMORY_SETTINGS and not self.read_only
                and not running.has_tls()):
            return ["memory", str(running.image.size)]
        if setting == "two":
            directory = os.path.join(running.directory, "exports")
            os.mkdir(directory)
            for name in running.images:
                path = running.copy(name, "raw")
                os.rename(path, os.path.join(directory, name))
            return ["file", f"dir={directory}"]
        path = running.copy(running.image.name, "raw")
        if setting == "faulty":
            return ["eval", "thread_model=echo parallel",
                    f"get_size=echo {running.image.size}",
                    f"pread=test $(($4 + $3)) -le {FAULT_START} || "
                    "{ echo EIO >&2; exit 1; }; "
                    f"dd if={path} skip=$4 count=$3 "
                    "iflag=count_bytes,skip_bytes"]
        if setting == "small":
            running.size_limit = SCRATCH_START + GROWTH_BYTES
        if setting == "aligned":
            return ["--filter=blocksize-policy", "file", path,
                    "blocksize-minimum=512", "blocksize-error-policy=error"]
        return ["file", path]

    def prepare(self, running):
        """The memory plugin starts empty."""
        if (running.setting not in MEMORY_SETTINGS or self.read_only
                or running.has_tls()):
            return
        with wire.Client(running.address) as client:
            client.greeting()
            client.send_flags(wire.FLAG_FIXED_NEWSTYLE)
            client.go(running.name)
            for start, end in running.image.data:
                data = running.image.content(start, end - start)
                client.command(wire.WRITE, start, len(data), data=data)
            client.disconnect(self.closes)


class NbdServer(Server):
    title = "nbd-server"
    image_form = "raw"
    clean_exits = (0, -signal.SIGTERM)
    lacks = {"empty_name": "it serves the names of its sections only"}

    def version(self):
        output = subprocess.run([self.path, "-V"], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT).stdout
        return output.decode("utf-8", "replace").splitlines()[0]

    def command(self, running):
        if running.setting in ("overlay", "faulty"):
            raise Unoffered("it serves plain files only")
        if running.setting == "tebibytes":
            raise Unoffered("no file is that long on many file systems")
        lines = ["[generic]", "allowlist = true"]
        if running.has_tls():
            directory = os.path.join(self.store.pki(), "server")
            lines += [f"certfile = {directory}/server-cert.pem",
                      f"keyfile = {directory}/server-key.pem",
                      f"cacertfile = {directory}/ca-cert.pem",
                      "force_tls = "
                      + ("false" if running.setting == "selective"
                         else "true")]
        if running.setting == "tcp":
            lines += ["listenaddr = 127.0.0.1", f"port = {running.port}"]
        else:
            lines += [f"unixsock = {running.address}"]
        for name in running.images:
            lines += [f"[{name}]", f"exportname = {running.copy(name, 'raw')}",
                      "flush = true", "fua = true", "trim = true"]
            if self.serves_read_only(running.setting):
                lines.append("readonly = true")
            if running.setting == "selective" and name == "beta":
                lines.append("force_tls = true")
        if running.setting == "small":
            running.size_limit = SCRATCH_START + GROWTH_BYTES
        config = os.path.join(running.directory, "config")
        with open(config, "w") as file:
            file.write("\n".join(lines) + "\n")
        return [self.path, "-C", config, "-p", self.pid_path(running)]

    def pid_path(self, running):
        return os.path.join(running.directory, "pid")

    def spawn(self, running, command, **options):
        return Daemon(command, self.pid_path(running), **options)


SERVERS = {server.title: server
           for server in (Qnbd, QemuNbd, Nbdkit, NbdServer, Bare)}
