#!/usr/bin/env python3
"""The rules of the house that a compiler does not see. Without an argument all are checked.

    check_tree.py map        ARCHITECTURE.md's map names every file, and no other; no file is named like an option
    check_tree.py arrows     includes and uses of functions point down only, between floors and between folders of one
    check_tree.py circles    no circle of files within a floor, but for those that are known (CIRCLES)
    check_tree.py sizes      no source file is longer than a sitting
    check_tree.py links      links between pages lead somewhere
    check_tree.py languages  a page in Chinese has the headings, commands, figures and links of the English one
    check_tree.py --propose  prints lines for the map for files that it lacks
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("include/", "src/", "tests/", "bench/", "scripts/", "docs/", "examples/", "cmake/", "web/", "deploy/", ".ci/")
MAX_LINES = 800

# From the roof down. A floor may include itself and the floors named here.
FLOORS = {
    "cli": {"base", "runnel.h"},
    "service": {"server", "base", "runnel.h"},
    "server": {"base", "runnel.h"},
    "engine": {"backend", "model", "constrain", "kernels", "base", "runnel.h"},
    "backend": {"model", "kernels", "gpu", "base"},
    "model": {"kernels", "base"},
    "kernels": {"base"},
    "constrain": {"base"},
    "gpu": {"base"},
    "base": set(),
}
# Folders within a floor, from the roof down: a file sees its own folder and those in the rows after it.
WINGS = {
    "server": [["server"], ["server/api"], ["server/core"], ["server/limits"], ["server/net"]],
    "model": [["model/formats"], ["model"], ["model/template"]],
    "kernels": [["kernels/arm", "kernels/x86"], ["kernels"]],
}
# Floors whose files (x.c and x.h are one) see each other in no circle, but for these arrows as (from, to). One that is gone is
# to be taken out, and none is to be added.
CIRCLES = {"engine": set(), "constrain": set(), "gpu": set()}
# base/error.h gives the public error type to all floors, so that only it needs to know runnel.h. The tools for model files
# look inside them; the command that serves starts the server.
EXCEPTIONS = {
    "src/base/error.h": {"runnel.h"},
    "src/cli/serve.c": {"service", "server"},
    "src/cli/serve_options.c": {"service", "server"},
    "src/cli/serve_cache.c": {"service"},
    "src/cli/main.c": {"service"},
    **{f"src/cli/{tool}.c": {"model", "kernels"}
       for tool in ("inspect", "bench", "model_check", "logits", "tokenize", "template", "convert",
                    "imatrix_file", "quantize")},
}


def tracked():
    """The files that git knows and that are there."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(name for name in names if (ROOT / name).exists())


def expand(word):
    """'gguf.{c,h}' -> gguf.c gguf.h"""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", word)
    return [match[1] + middle + match[3] for middle in match[2].split(",")] if match else [word]


def read_map():
    """The files and whole folders of the map: the fenced block after the heading "Map". A line that begins with a
    name ending in / opens a folder; `folder/**` stands for all that is below it; an indented line names files of the open
    folder, then, after two spaces, says what they are."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = re.search(r"^## Map.*?^```\n(.*?)^```", text, re.S | re.M)
    assert block, "ARCHITECTURE.md has no section 'Map' with a fenced block"
    files, folders, folder = set(), set(), ""
    for line in block[1].splitlines():
        if not line.strip():
            continue
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if not line.startswith(" "):
            if names[0].endswith("/**"):
                folders.add(names[0][:-2])
                continue
            folder = names[0]
            assert folder.endswith("/"), f"ARCHITECTURE.md: expected a folder ending in '/', found '{names[0]}'"
            continue
        files.update(folder + file for name in names for file in expand(name))
    return files, folders


def missing_from_map():
    files, folders = read_map()
    return [name for name in tracked() if name.startswith(MAPPED) and name not in files
            and not any(name.startswith(folder) for folder in folders)]


def check_map():
    files, folders = read_map()
    complaints = [f"ARCHITECTURE.md's map lacks {name}" for name in missing_from_map()]
    complaints += [f"ARCHITECTURE.md's map names {name}, which is not there" for name in sorted(files | folders)
                   if not (ROOT / name).exists()]
    complaints += [f"{name} is named like an option: a program took one for a file's name" for name in tracked()
                   if Path(name).name.startswith("-")]
    return complaints


def includes(name):
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match[1] == '"', match[2]


def folder_of(name):
    """'src/server/net/loop.c' -> 'server/net'"""
    return str(Path(name).parent.relative_to("src"))


def below(folder):
    """The folders of its floor that the files of a folder may see besides it."""
    rows = WINGS.get(folder.split("/")[0], [])
    own = next((index for index, row in enumerate(rows) if folder in row), len(rows))
    return [other for row in rows[own + 1:] for other in row]


def judge(name, where, target):
    """What is wrong if a file of src/ sees the folder `target` of src/, or 'runnel.h'; None: nothing."""
    folder = folder_of(name)
    floor, target_floor = folder.split("/")[0], target.split("/")[0]
    if floor not in FLOORS:
        return f"{name}: src/{floor}/ is not a floor of the house"
    if target_floor != floor:
        allowed = FLOORS[floor] | EXCEPTIONS.get(name, set())
        return None if target_floor in allowed else f"{where}: {floor} may see {', '.join(sorted(FLOORS[floor] | {floor}))}"
    if target == folder or target in below(folder):
        return None
    return f"{where}: {folder} may see of its floor {', '.join([folder, *below(folder)])}"


def check_arrows():
    complaints = []
    for name in tracked():
        if not name.endswith((".c", ".h")):
            continue
        for number, ours, header in includes(name):
            where = f"{name}:{number} includes {header}"
            if header.endswith(".c"):
                complaints.append(f"{where}: a .c file is linked, not included")
            if name.startswith("include/") and ours:
                complaints.append(f"{where}: the public header stands on the system's headers alone")
            if name.startswith("src/") and ours:
                complaints.append(judge(name, where, header if header == "runnel.h" else str(Path(header).parent)))
    for name, function, home in uses():
        target = "runnel.h" if function.startswith("runnel_") and not name.startswith("src/engine/") else folder_of(home)
        complaints.append(judge(name, f"{name} uses {function} of {home}", target))
    return [complaint for complaint in complaints if complaint]


def code_of(name):
    """A source without comments, texts and directives."""
    text = (ROOT / name).read_text()
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.S)
    return re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", "", text, flags=re.M)


# A function with a body, as clang-format sets it: its first line at the margin, its brace on a line of its own.
DEFINITION = re.compile(r"^(?!static\b|typedef\b)[A-Za-z_][\w \t*]*?\b(\w+)\((?:[^;{}]*)\)\s*\n\{", re.M)


def uses():
    """Which file uses which function of which other file, by its name: calls, and addresses that are taken."""
    sources = {name: code_of(name) for name in tracked() if name.startswith("src/") and name.endswith(".c")}
    homes = {}
    for name, code in sources.items():
        for function in DEFINITION.findall(code):
            homes.setdefault(function, []).append(name)
    for name, code in sources.items():
        own = set(re.findall(r"^static\b[^;{}()]*?\b(\w+)\(", code, re.M))
        for word in sorted(set(re.findall(r"(?<![.>])\b[a-z]\w*\b", code)) - own):
            if word in homes and name not in homes[word]:
                for home in homes[word]:
                    yield name, word, home


def circles(arrows):
    """The groups of things that reach each other; arrows: {(from, to): why}."""
    nodes = sorted({node for arrow in arrows for node in arrow})
    reach = {node: {to for origin, to in arrows if origin == node} for node in nodes}
    for middle in nodes:
        for node in nodes:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {frozenset(other for other in nodes if other in reach[node] and node in reach[other])
              for node in nodes if node in reach[node]}
    return [sorted(group) for group in groups]


def module_arrows(floor):
    """Between the modules of a floor (x.c and x.h are one): who includes and uses whom, with an example of it."""
    arrows = {}
    prefix = f"src/{floor}/"
    for name in tracked():
        if name.startswith(prefix) and name.endswith((".c", ".h")):
            for number, ours, header in includes(name):
                if ours and header.startswith(f"{floor}/"):
                    arrows.setdefault((Path(name).stem, Path(header).stem), f"{name}:{number} includes {header}")
    for name, function, home in uses():
        if name.startswith(prefix) and home.startswith(prefix):
            arrows.setdefault((Path(name).stem, Path(home).stem), f"{name} uses {function} of {home}")
    return {arrow: why for arrow, why in arrows.items() if arrow[0] != arrow[1]}


def check_circles():
    complaints = []
    for floor, known in CIRCLES.items():
        arrows = module_arrows(floor)
        complaints += [f"tests/check_tree.py: CIRCLES knows {floor}/{one} -> {other}, which is gone: take it out"
                       for one, other in sorted(known) if (one, other) not in arrows]
        rest = {arrow: why for arrow, why in arrows.items() if arrow not in known}
        for group in circles(rest):
            complaints.append(f"src/{floor}/: {', '.join(group)} see each other in a circle:")
            complaints += [f"    {why}" for (one, other), why in sorted(rest.items()) if one in group and other in group]
    return complaints


def check_sizes():
    complaints = []
    for name in tracked():
        if name.startswith("src/") and name.endswith((".c", ".h")):
            lines = (ROOT / name).read_text().count("\n")
            if lines > MAX_LINES:
                complaints.append(f"{name} has {lines} lines, at most {MAX_LINES} fit a sitting")
    return complaints


def anchors(page):
    """What a link into a page can name: its headings, as GitHub names them, and <a id="...">."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ +(.*)$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        n = 1
        while (one := name if n == 1 else f"{name}-{n - 1}") in found:
            n += 1
        found.add(one)
    return found


def check_links():
    """Links of pages to files of this tree and to headings; what is elsewhere is not looked at."""
    complaints = []
    for name in tracked():
        if not name.endswith(".md"):
            continue
        page = ROOT / name
        text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.S | re.M)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists():
                complaints.append(f"{name} links to {target}, which is not there")
            elif anchor and anchor not in anchors(file):
                complaints.append(f"{name} links to {target}: there is no such heading")
    return complaints


def skeleton(name):
    """What a page and its translation have in common: (what it is, what stands there, where), from top to bottom."""
    parts, links, in_block = [], [], False
    for number, line in enumerate((ROOT / name).read_text().splitlines() + [""], 1):
        found = None
        if line.startswith("```"):
            in_block = not in_block
            found = ("block", line)
        elif in_block:  # comments behind or above a command are words
            found = ("line of a block", re.sub(r"(^|\s)# .*", "", line).rstrip())
        elif line.startswith("#"):
            found = ("heading", re.match(r"#+", line)[0])
        elif line.startswith("|"):
            figures = [re.findall(r"\d[\d.,]*\d|\d", cell) for cell in line.strip("|").split("|")]
            found = ("row", " | ".join(" ".join(cell) for cell in figures))
        elif re.match(r"- |\d+\. ", line):
            found = ("item", "")
        if found or not line:  # a paragraph has ended; within one a translation has lines and order of its own
            parts += [("link", link, f"{name}:{number - 1}") for link in sorted(links)]
            links = []
        if found:
            parts.append((*found, f"{name}:{number}"))
        if not in_block and "简体中文" not in line:
            links += [re.sub(r"\.zh-CN(?=\.md)", "", link) for link in re.findall(r"\]\(([^)\s#]+)", line)]
    return parts + [("end", "", f"{name}:{number}")]


def check_languages():
    complaints = []
    for name in tracked():
        original = name.replace(".zh-CN", "")
        if original == name or not name.endswith(".md"):
            continue
        if not (ROOT / original).exists():
            complaints.append(f"{name} translates {original}, which is not there")
            continue
        if name not in (ROOT / original).read_text() and Path(name).name not in (ROOT / original).read_text():
            complaints.append(f"{original} does not name its translation {name}")
        for one, other in zip(skeleton(original), skeleton(name)):
            if one[:2] != other[:2]:  # the first difference: all that follows may be shifted
                complaints.append(f"{one[2]} has a {one[0]} '{one[1]}' where {other[2]} has a {other[0]} '{other[1]}'")
                break
    return complaints


def propose():
    """Lines for the map: what a file's own header comment says it is."""
    folder = None
    for name in missing_from_map():
        path = Path(name)
        if path.parent != folder:
            folder = path.parent
            print(f"{folder}/")
        head = (ROOT / name).read_text(errors="replace")[:600]
        match = re.search(re.escape(path.name) + r":\s+(.*?)[.:;\n]", head, re.S)
        print(f"    {path.name:24}  {' '.join(match[1].split()) if match else ''}")


CHECKS = {"map": check_map, "arrows": check_arrows, "circles": check_circles, "sizes": check_sizes, "links": check_links,
          "languages": check_languages}


def main(arguments):
    if arguments == ["--propose"]:
        propose()
        return 0
    unknown = [name for name in arguments if name not in CHECKS]
    if unknown:
        print(__doc__, file=sys.stderr)
        return 2
    if not (ROOT / ".git").exists():
        print("not a git checkout: nothing to compare with")
        return 77
    complaints = [complaint for name in arguments or CHECKS for complaint in CHECKS[name]()]
    print("\n".join(complaints) or "all in order")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
