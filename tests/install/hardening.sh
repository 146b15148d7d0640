#!/usr/bin/env bash
# hardening.sh FILE: what the program or library FILE lacks of what makes its defects harder to use, a line each; status 1 if
# anything. What the linker does is read from its headers, what the compiler does from the options that stand in its debugging
# information, for each source file.
set -euo pipefail
file=$1
missing=0
lacks() { echo "$file: $*"; missing=1; }

headers=$(readelf --wide --file-header --program-headers "$file")
dynamic=$(readelf --wide --dynamic "$file")
symbols=$(readelf --wide --dyn-syms "$file")

grep -qE '^ *Type: +DYN' <<<"$headers" || lacks "it is not position independent: the system cannot move it about (PIE)"
! grep -q 'INTERP' <<<"$headers" || grep -qE 'FLAGS_1.* PIE' <<<"$dynamic" || lacks "it is not linked as a program that can be moved about (PIE)"
grep -q 'GNU_RELRO' <<<"$headers" || lacks "no RELRO: its table of functions stays writable"
grep -qE 'BIND_NOW|FLAGS_1.* NOW' <<<"$dynamic" || lacks "no BIND_NOW: functions are looked up late, and RELRO is not full"
grep -qE 'GNU_STACK.* RW ' <<<"$headers" || lacks "its stack is executable"
! grep -qE 'LOAD.* RWE ' <<<"$headers" || lacks "a segment is writable and executable"
grep -q ' __stack_chk_fail' <<<"$symbols" || lacks "nothing looks after its stack (-fstack-protector-strong)"
grep -qE ' __[a-z]+_chk(@| |$)' <<<"$symbols" || lacks "no copy is checked (_FORTIFY_SOURCE)"

wanted=(-fstack-protector-strong -fstack-clash-protection)
case $(sed -n 's/^ *Machine: *//p' <<<"$headers") in
*X86-64*) wanted+=(-fcf-protection=full) ;;
*AArch64*) wanted+=(-mbranch-protection=standard) ;;
esac
# A line for each file that was compiled: its name and the compiler with its options. Assembly has none.
compiled=$(readelf --wide --debug-dump=info --dwarf-depth=1 "$file" 2>/dev/null | awk '
    /DW_AT_producer/ { producer = $0 }
    /DW_AT_name/ && producer { sub(/.*: /, ""); print $0 "\t" producer; producer = "" }')
grep -q . <<<"$compiled" || lacks "no debugging information: the options of the compiler cannot be seen"
for option in "${wanted[@]}"; do
    without=$(grep -v -- " $option\b" <<<"$compiled" | grep -v 'GNU AS' | cut -f1 | sort -u | tr '\n' ' ' || true)
    [ -z "${without// /}" ] || lacks "compiled without $option: $without"
done
exit $missing
