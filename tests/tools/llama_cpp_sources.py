"""Files of llama.cpp's sources, as the source package of llama-cpp-python holds them. None of them is part of this project."""
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE, VERSION = "llama-cpp-python", "0.3.36"


def download(folder, *what):
    """Has pip put packages into folder. Ends the program with 77, which skips a test, if it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", str(folder), *what]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        print("skipped: there is nothing to compare with")
        sys.exit(77)


def fetch_files(part_of_path, folder, packages=ROOT / "build" / "llama-cpp-python"):
    """Puts the files whose path has that part into folder, without folders. Returns folder."""
    package = packages / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
    if not package.exists():
        download(packages, "--no-binary", PACKAGE, f"{PACKAGE}=={VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        for member in archive:
            if part_of_path in member.name and member.isfile():
                (folder / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    return folder
