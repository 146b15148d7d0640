"""What can be wrong with the Dockerfile and the compose file, without building: names, the user, the health check, packages, what a build is
given, limits that agree. test_image.py builds the image."""
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest
from deployed import (DEPLOY, DOCKERFILE, documents, exec_form, image_environment, instructions, last_of, option_default,
                      options_of_serve, seconds)
from serving import ROOT, RUNNEL, SANITIZED

HEALTHCHECK = DEPLOY / "docker" / "healthcheck"
COMPOSE = DEPLOY / "compose" / "compose.yaml"


# The Dockerfile ----------------------------------------------------------------------------------------------------

def test_stages_stand_on_one_base_with_its_full_name():
    """Without a registry's name an engine asks, or takes the first registry that has one; `latest` is another one each year."""
    bases = [dict(stage)["FROM"].split()[0] for stage in instructions()]
    assert len(bases) == 2 and len(set(bases)) == 1
    assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]+/[a-z0-9/-]+:[a-z0-9.-]+-slim", bases[0]) and not bases[0].endswith(":latest")


def test_what_runs_is_not_root():
    user = re.fullmatch(r"(\d+):(\d+)", last_of("USER"))
    assert user and int(user[1]) > 0 and int(user[2]) > 0
    made = [argument for name, argument in instructions()[-1] if name == "RUN"]
    assert any(f"--uid {user[1]} " in argument and f"--gid {user[2]} " in argument for argument in made)
    names = [name for name, _ in instructions()[-1]]
    assert "RUN" not in names[names.index("USER"):]


def test_process_one_is_the_program():
    """A shell as process 1 would keep SIGTERM to itself."""
    assert exec_form(last_of("ENTRYPOINT")) == ["/usr/local/bin/runnel"]
    assert exec_form(last_of("CMD")) == ["serve"]
    assert last_of("STOPSIGNAL") == "SIGTERM"
    assert any(name == "COPY" and argument == "--from=build /runnel/build/runnel /usr/local/bin/" for name, argument in instructions()[-1])


def test_nothing_is_compiled_for_the_machine_that_builds():
    assert not re.search(r"march|mtune|native|CFLAGS|C_FLAGS|RUNNEL_MACHINE", DOCKERFILE.read_text())


def test_variables_of_the_image_are_options():
    environment = image_environment()
    assert int(environment["RUNNEL_PORT"]) == int(last_of("EXPOSE"))
    known = {"RUNNEL_" + option.upper().replace("-", "_") for option in options_of_serve()} | {"RUNNEL_MODELS"}
    assert set(environment) <= known


def libraries(program):
    """The files of the shared libraries that it names itself."""
    needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout)
    found = dict(re.findall(r"(\S+) => (/\S+)", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout))
    return [os.path.realpath(found[name]) for name in needed]


@pytest.mark.skipif(SANITIZED or not shutil.which("dpkg-query"), reason="dpkg is not there, or a sanitizer's libraries are")
def test_the_packages_of_the_image_are_those_that_the_program_needs():
    """[run] of packages.txt against the libraries that it is linked with, on a machine that has those packages."""
    section = (ROOT / "packages.txt").read_text().split("\n[run]")[1].split("\n[")[0]
    listed = {line.split()[0] for line in section.splitlines()[1:] if line.strip() and not line.startswith("#")}
    there = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\n", *listed], capture_output=True, text=True).stdout.split()
    if set(there) != listed:
        pytest.skip(f"this machine has other packages than Debian 12: {listed - set(there)}")
    owners = set()
    for path in libraries(RUNNEL):
        for name in (path, path.removeprefix("/usr")):
            done = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True)
            if done.returncode == 0:
                owners.add(done.stdout.split(":")[0])
    assert "libcurl4" in owners
    assert listed == owners - {"libc6"} | {"ca-certificates"}


# Its context -------------------------------------------------------------------------------------------------------

def tracked():
    done = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def context():
    """What .dockerignore lets through of the files of the repository."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*" and all(re.fullmatch(r"![\w./-]+", line) for line in lines[1:])
    return [name for name in tracked() if any(name == line[1:] or name.startswith(line[1:] + "/") for line in lines[1:])]


def test_a_build_is_given_what_it_needs_and_no_more(tmp_path):
    given = context()
    assert {name for name in tracked() if name.startswith(("src/", "include/", "web/", "cmake/"))} <= set(given)
    assert not [name for name in given if name.startswith(("tests/", "models/", "bench/", "docs/", "build", ".git"))]
    copied = [argument for stage in instructions() for name, argument in stage if name == "COPY" and "--from" not in argument]
    for argument in copied:
        for source in re.sub(r"--\S+ ", "", argument).split()[:-1]:
            assert source == "." or source in given, source
    for name in given:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    configure = re.search(r"cmake --preset [^&]+", DOCKERFILE.read_text())[0].split("\\")[0].split()
    done = subprocess.run(configure, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_steps_run_what_is_there():
    steps = " ".join(argument for stage in instructions() for name, argument in stage if name == "RUN")
    assert all(os.access(ROOT / script, os.X_OK) for script in re.findall(r"scripts/[\w-]+", steps))
    sections = re.findall(r"scripts/install-packages ([a-z-]+)", steps)
    assert sections == ["build", "run"]
    assert all(f"\n[{section}]" in (ROOT / "packages.txt").read_text() for section in sections)


# The health check --------------------------------------------------------------------------------------------------

def check_health(port):
    environment = {"PATH": os.environ["PATH"], "RUNNEL_PORT": str(port)}
    return subprocess.run([HEALTHCHECK], env=environment, capture_output=True, text=True, timeout=60).returncode


class Answering:
    """A server that answers each connection with the same bytes; none: it says nothing."""

    def __init__(self, answer):
        self.answer, self.asked = answer, b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        connection, _ = self.socket.accept()
        while self.answer is None or b"\r\n\r\n" not in self.asked:
            more = connection.recv(4096)
            if not more:
                return
            self.asked += more
        connection.sendall(self.answer)
        connection.close()


def test_the_health_check_is_the_one_that_the_image_runs():
    command = last_of("HEALTHCHECK")
    path = exec_form(command)[0]
    assert any(name == "COPY" and argument == f"--chmod=755 deploy/docker/healthcheck {os.path.dirname(path)}/"
               for name, argument in instructions()[-1])
    options = dict(re.findall(r"--([a-z-]+)=(\S+)", command))
    assert int(options["retries"]) * seconds(options["interval"]) >= 30
    assert seconds(options["timeout"]) > int(re.search(r"read -r -t (\d+)", HEALTHCHECK.read_text())[1])


def test_a_ready_server_is_healthy(serve):
    assert check_health(serve().port) == 0


def test_a_server_with_keys_is_healthy(serve):
    assert check_health(serve("--api-key", "key-of-a-test", "--host", "0.0.0.0").port) == 0


@pytest.mark.parametrize("answer, status", [(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0),
                                            (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 1),
                                            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1),
                                            (b"", 1), (None, 1)])
def test_health_is_the_status(answer, status):
    server = Answering(answer)
    assert check_health(server.port) == status
    assert server.asked.startswith(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")


def test_no_server_is_not_healthy():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert check_health(port) == 1


# The pages ---------------------------------------------------------------------------------------------------------

# Options of docker, kubelet and helm in the pages.
OF_OTHERS = set("""rm name init read-only cap-drop security-opt memory memory-swap cpuset-cpus cpuset-mems cpus stop-timeout shm-size ulimit format build
detach follow extended from-file from-literal raw install cpu-manager-policy topology-manager-policy""".split())


def test_options_and_files_that_pages_name_exist():
    for page in ("containers", "kubernetes"):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        assert set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", text)) <= options_of_serve() | OF_OTHERS
        for path in re.findall(r"(?<![\w/.])(deploy/[\w./-]*\w)", text):
            assert (ROOT / path).exists(), path


# The compose file --------------------------------------------------------------------------------------------------

def interpolated(value):
    """With the defaults of its variables: ${NAME:-default}."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def n_cpus(cpus):
    """'0-1,4' -> 3"""
    return sum(int(last or first) - int(first) + 1 for first, last in re.findall(r"(\d+)(?:-(\d+))?", cpus))


@pytest.fixture
def services():
    [compose] = documents(COMPOSE)
    assert set(compose["secrets"]) == {"keys"} and set(compose["volumes"]) == {"models"}
    return compose["services"]


def test_compose_builds_this_image(services):
    build = services["model"]["build"]
    folder = (COMPOSE.parent / build["context"]).resolve()
    assert folder == ROOT and folder / build["dockerfile"] == DOCKERFILE
    version = re.search(r"project\(runnel VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert {service["image"] for service in services.values()} == {f"runnel:{version}"}


def test_compose_locks_both_in(services):
    for service in services.values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "user", "network_mode", "pid"} & set(service)


def test_compose_serves_what_it_has_pulled(services):
    pull, serve = services["model"], services["runnel"]
    assert pull["command"][0] == "pull" and serve["command"][:2] == ["serve", "-m"]
    assert pull["command"][1] == serve["command"][2]
    models = image_environment()["RUNNEL_MODELS"]
    assert pull["volumes"] == [f"models:{models}"] and serve["volumes"] == [f"models:{models}:ro"]
    assert serve["depends_on"] == {"model": {"condition": "service_completed_successfully"}}


def test_compose_asks_for_a_key_and_listens_on_loopback(services):
    serve = services["runnel"]
    options = [word for word in serve["command"] if word.startswith("--")]
    assert {option[2:] for option in options} <= options_of_serve()
    assert serve["secrets"] == ["keys"]
    assert serve["command"][serve["command"].index("--api-key-file") + 1] == "/run/secrets/keys"
    assert serve["ports"] == [f"127.0.0.1:8080:{image_environment()['RUNNEL_PORT']}"]


def test_limits_of_compose_agree(services):
    serve = services["runnel"]
    assert seconds(serve["stop_grace_period"]) > option_default("timeout-drain")
    assert n_cpus(interpolated(serve["cpuset"])) == int(interpolated(serve["cpus"]))
    assert serve["mem_limit"] == serve["memswap_limit"]
    assert interpolated(serve["mem_limit"]) == "3g"  # 1.5B model and default cache: 1.7 GB (docs/operation.md)


def test_variables_of_compose_are_explained(services):
    text = COMPOSE.read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used and used == set(re.findall(r"^#   (\w+) ", text, re.M))
    page = (ROOT / "docs" / "containers.md").read_text()
    assert not {name for name in used if name not in page}


def test_nothing_lies_in_dev_shm(services):
    """Why there is no shm_size: whoever puts something there must set it, and say so in docs/containers.md."""
    assert "shm_size" not in services["runnel"] and "ipc" not in services["runnel"]
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.[ch]"))
    assert not re.search(r"shm_open|/dev/shm|shmget", sources)
