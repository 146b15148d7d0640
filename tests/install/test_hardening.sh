#!/usr/bin/env bash
# test_hardening.sh BUILD_DIR COMPILER: what was built lacks nothing that hardening.sh looks for, and hardening.sh sees it where one thing is left out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
compiler=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

echo "== what was built"
for file in runnel librunnel.so; do
    [ -e "$build/$file" ] || fail "$build/$file is not there"
    "$here/hardening.sh" "$(readlink -f "$build/$file")" || fail "$file is not hardened"
done

echo "== programs that lack something"
cat >"$work/program.c" <<'END'
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
    char name[32];
    strcpy(name, argv[argc - 1]);
    return printf("%s\n", name) < 0;
}
END
options=(-g -O2 -fPIE -pie -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
case $(uname -m) in
x86_64) options+=(-fcf-protection=full) ;;
aarch64) options+=(-mbranch-protection=standard) ;;
esac
if "$compiler" --version | grep -q clang; then
    options+=(-grecord-command-line)
fi
"$compiler" -w -U_FORTIFY_SOURCE "${options[@]}" "$work/program.c" -o "$work/whole"
"$here/hardening.sh" "$work/whole" || fail "a program that lacks nothing"

# without WHAT INSTEAD WORDS: where INSTEAD stands in the place of an option, a line with WORDS is said.
without() {
    local said option status=0 others=()
    for option in "${options[@]}"; do
        [ "$option" = "$1" ] || others+=("$option")
    done
    [ -z "$2" ] || others+=("$2")
    "$compiler" -w -U_FORTIFY_SOURCE "${others[@]}" "$work/program.c" -o "$work/lacking" || fail "no program without $1"
    said=$("$here/hardening.sh" "$work/lacking") || status=$?
    [ $status = 1 ] && grep -q -- "$3" <<<"$said" || fail "a program without $1 was not noticed: $said"
}
without -pie -no-pie "not position independent"
without -Wl,-z,relro -Wl,-z,norelro "no RELRO"
without -Wl,-z,now -Wl,-z,lazy "no BIND_NOW"
without -Wl,-z,noexecstack -Wl,-z,execstack "its stack is executable"
without -D_FORTIFY_SOURCE=2 "" "no copy is checked"
without -fstack-protector-strong -fno-stack-protector "nothing looks after its stack"
without -fstack-protector-strong -fno-stack-protector "compiled without -fstack-protector-strong"
without -fstack-clash-protection -fno-stack-clash-protection "compiled without -fstack-clash-protection"
case $(uname -m) in
x86_64) without -fcf-protection=full -fcf-protection=none "compiled without -fcf-protection=full" ;;
aarch64) without -mbranch-protection=standard -mbranch-protection=none "compiled without -mbranch-protection=standard" ;;
esac
without -g -g0 "no debugging information"
echo "all passed"
