"""The image for real: buildah builds it on a base that debootstrap makes, under the name that the Dockerfile has for it, and runs it. The
server in it answers with the smallest model, its health check passes, and SIGTERM ends it with 0, also as process 1 of a container
that may write nowhere.

It needs buildah, debootstrap, root and Debian's mirror (DEBIAN_MIRROR). IMAGE_DIR (default /var/tmp/runnel-image) keeps the base between
runs; with BUILDAH_LAYERS=true in the environment it keeps the steps of the build as well, for whoever changes them."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from deployed import DOCKERFILE, instructions
from models_folder import real_model
from serving import BY_THEN, ROOT, family_of, free_port, wait_until

FOLDER = Path(os.environ.get("IMAGE_DIR", "/var/tmp/runnel-image"))
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
IMAGE = "runnel:test"
KEY = "key-of-a-test"
BUILD_S = 3000  # the compilers are fetched and everything is compiled, on a slow machine that has other work
# What debian:*-slim leaves out, so that nothing here rests on it.
SLIM = """path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""


def run(*command, timeout=BUILD_S, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def why_not():
    for program in ("buildah", "debootstrap", "unshare"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return "this needs root" if os.geteuid() else None


@pytest.fixture(scope="module")
def buildah():
    """buildah(arguments...) runs it, with a storage of its own; buildah.start is how it begins."""
    if reason := why_not():
        pytest.skip(f"the image is not built here: {reason} (packages.txt, [test-image])")
    storage = FOLDER / "storage"
    kept = os.environ.get("BUILDAH_LAYERS") == "true"
    if not kept:
        shutil.rmtree(storage, ignore_errors=True)
    storage.mkdir(parents=True, exist_ok=True)
    start = ["buildah", "--root", storage / "root", "--runroot", storage / "run", "--storage-driver", "vfs"]

    def call(command, *arguments, **options):
        return run(*start, command, *arguments, **options)

    call.start = [str(word) for word in start]
    yield call
    call("rm", "--all")
    if not kept:
        shutil.rmtree(storage)


def make_base():
    """Debian's smallest system as an archive, made once."""
    archive = FOLDER / "base.tar"
    if not archive.exists():
        tree = FOLDER / "new"
        shutil.rmtree(tree, ignore_errors=True)
        release = dict(instructions()[0])["FROM"].split()[0].split(":")[1].removesuffix("-slim")
        run("debootstrap", "--variant=minbase", release, tree, MIRROR)
        (tree / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
        run("tar", "-C", tree, "-cf", archive.with_suffix(".part"), "--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*",
            "--exclude=./dev/*", ".")
        archive.with_suffix(".part").rename(archive)
        shutil.rmtree(tree)
    return archive


@pytest.fixture(scope="module")
def image(buildah):
    """What the built image says of itself."""
    base = dict(instructions()[0])["FROM"].split()[0]
    if subprocess.run([*buildah.start, "inspect", "--type", "image", base], capture_output=True).returncode:
        container = buildah("from", "scratch")
        buildah("add", container, make_base(), "/")
        buildah("commit", container, base)
        buildah("rm", container)
    buildah("bud", "--isolation=chroot", "--pull=never", "--format", "docker", "-f", DOCKERFILE, "-t",
            IMAGE, ROOT)
    return json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]


@pytest.fixture(scope="module")
def root(buildah, image):
    """A container of the image: its name, and where its files lie."""
    name = buildah("from", "--pull=never", IMAGE)
    return name, Path(buildah("mount", name))


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A folder with the smallest model and a file of keys, as a volume for user 10001."""
    folder = tmp_path_factory.mktemp("volume")
    shutil.copy(real_model("smollm2-135m"), folder)
    (folder / "keys").write_text(f"{KEY}\n")
    for path in (folder, *folder.iterdir()):
        os.chown(path, 10001, 10001)
        path.chmod(0o700 if path.is_dir() else 0o400)
    return folder


class Container:
    """A server that runs in a container, of which `process` is the outermost process here."""

    def __init__(self, command, port):
        self.port = port
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BY_THEN)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def wait_until_ready(self):
        end = time.monotonic() + BY_THEN
        while True:
            assert self.process.poll() is None, self.process.stderr.read()
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            assert time.monotonic() < end
            time.sleep(0.1)

    def server_pid(self):
        """The server among the processes below the outermost one."""
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            if os.readlink(f"/proc/{pid}/exe").endswith("/usr/local/bin/runnel"):
                return pid
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
        raise AssertionError("no server runs")

    def family(self):
        """{title: process} of the server: "runnel: supervisor", "runnel: keeper", "runnel: worker 0"."""
        return {title: pid for pid, title in family_of(self.server_pid()).items()}

    def status(self, field, pid=None):
        """Of the server, or another process of it."""
        lines = Path(f"/proc/{pid or self.server_pid()}/status").read_text().splitlines()
        return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))

    def end(self):
        """SIGTERM to the server; the exit status, and what it logged."""
        os.kill(self.server_pid(), signal.SIGTERM)
        _, log = self.process.communicate(timeout=BY_THEN)
        return self.process.returncode, log

    def kill(self):
        if self.process.poll() is None:
            os.kill(self.server_pid(), signal.SIGKILL)
            self.process.communicate(timeout=BY_THEN)


@pytest.fixture
def start():
    containers = []

    def start_container(command, port):
        containers.append(Container(command, port))
        return containers[-1]

    yield start_container
    for container in containers:
        container.kill()


def variables(image, port):
    """The environment: the image's own, and what a user would give with --env."""
    return [*image["Env"], "RUNNEL_MODEL=smollm2-135m", f"RUNNEL_PORT={port}", "RUNNEL_KV_CACHE_MIB=128", "RUNNEL_CTX=2048", "RUNNEL_API_KEY_FILE=/models/keys"]


def check_workers(container, n):
    """Each one closes its sandbox, and one that is killed is replaced within the container. A server is ready with its first worker."""
    before = container.family()
    workers = [f"runnel: worker {i}" for i in range(n)]
    assert sorted(before) == ["runnel: keeper", "runnel: supervisor", *workers], before
    for title in workers:
        wait_until(lambda title=title: container.status("Seccomp", before[title]) == ["2"])
        assert container.status("Uid", before[title]) == ["10001"] * 4
    os.kill(before[workers[0]], signal.SIGKILL)
    wait_until(lambda: container.family().get(workers[0]) not in (None, before[workers[0]]))
    after = container.family()
    assert {title for title in before if before[title] != after.get(title)} == {workers[0]}


def check_answers(container):
    status, answer = container.ask("POST", "/v1/completions", {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0})
    assert status == 200 and "Paris" in answer["choices"][0]["text"], answer


def test_what_the_image_says_of_itself(image):
    assert image["User"] == "10001:10001"
    assert image["Entrypoint"] == ["/usr/local/bin/runnel"] and image["Cmd"] == ["serve"]
    assert image["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/healthcheck"]
    assert "8080/tcp" in image["ExposedPorts"]


def test_compilers_stay_outside(root):
    _, files = root
    assert (files / "usr/local/bin/runnel").exists()
    assert not list(files.glob("usr/bin/*gcc*")) and not (files / "runnel").exists() and not (files / "tmp/runnel").exists()
    assert not list(files.glob("var/lib/apt/lists/*_Packages"))
    assert run("chroot", files, "/usr/local/bin/runnel", "--version").startswith("runnel ")


def test_it_answers_is_healthy_and_ends(buildah, image, root, volume, start):
    name, _ = root
    port = free_port()
    environment = [word for entry in variables(image, port) for word in ("--env", entry)]
    inside = [*buildah.start, "run", "--isolation=chroot", *environment]
    container = start([*inside, "--volume", f"{volume}:/models:ro", name, "--", *image["Entrypoint"], *image["Cmd"]], port)
    container.wait_until_ready()
    assert container.status("Uid") == ["10001"] * 4
    check_answers(container)
    check_workers(container, 1)
    check_answers(container)
    run(*inside, name, "--", *image["Healthcheck"]["Test"][1:])
    status, log = container.end()
    assert status == 0 and "RUNNEL_" not in log, log
    unhealthy = subprocess.run([*inside, name, "--", *image["Healthcheck"]["Test"][1:]], capture_output=True)
    assert unhealthy.returncode == 1


# A container as an engine makes it, as far as the server sees it: a file system that cannot be written, processes of its own, no capabilities.
LOCKED = """
root=$1 volume=$2; shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$volume" "$root/models"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all env -i "$@"
"""


def test_as_process_one_without_rights(image, root, volume, start):
    _, files = root
    port = free_port()
    container = start(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", LOCKED, "sh", files, volume, *variables(image, port),
                       "RUNNEL_WORKERS=2", *image["Entrypoint"], *image["Cmd"]], port)
    container.wait_until_ready()
    assert container.status("NSpid")[-1] == "1"
    assert container.status("NoNewPrivs") == ["1"] and container.status("CapBnd") == ["0000000000000000"]
    pid = container.server_pid()
    mounts = {line.split()[4]: line.split()[5] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert mounts["/"].startswith("ro,") and mounts["/models"].startswith("ro,")
    check_answers(container)
    check_workers(container, 2)
    check_answers(container)
    status, log = container.end()
    assert status == 0 and "RUNNEL_" not in log, log


def test_it_runs_on_an_old_cpu(image, root, tiny):
    """x86-64-v2 without AVX, emulated, with the libraries of the image: the same bits as on this one."""
    qemu = shutil.which("qemu-x86_64")
    if not qemu:
        pytest.skip("qemu-x86_64 is not installed")
    _, files = root
    command = [files / "usr/local/bin/runnel", "run", "-m", tiny, "-p", "2 + 2 =", "-n", "3", "--raw", "--temp", "0", "--seed", "1", "--json"]
    here = json.loads(run(*command))
    old = json.loads(run(qemu, "-cpu", "Nehalem", "-L", files, *command))
    assert (old["text"], old["logits_hash"]) == (here["text"], here["logits_hash"])
