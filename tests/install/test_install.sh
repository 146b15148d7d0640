#!/usr/bin/env bash
# test_install.sh BUILD_DIR: installs that build into a temporary folder and uses it as a stranger would: the example built
# with pkg-config and with CMake, against the shared and the static library, as C and as C++; and what the library exports.
# With smollm2-135m.gguf in the folder of test models some of the programs answer a question.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
models=${RUNNEL_MODELS_DIR:-$source_dir/models}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/usr
strict=(-Wall -Wextra -Wpedantic -Werror)

fail() { echo "FAILED: $*" >&2; exit 1; }

echo "== install, also below DESTDIR"
cmake --install "$build" --prefix "$prefix" >"$work/log"
DESTDIR=$work/stage cmake --install "$build" --prefix /opt/runnel >"$work/log"
diff <(cd "$prefix" && find . | sort) <(cd "$work/stage/opt/runnel" && find . | sort) || fail "DESTDIR changes what is installed"
for file in bin/runnel include/runnel.h lib/librunnel.a lib/librunnel.so lib/pkgconfig/runnel.pc; do
    [ -e "$prefix/$file" ] || fail "$file is not installed"
done
[ "$("$prefix/bin/runnel" --version)" = "runnel $(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --modversion runnel)" ] ||
    fail "the program's version is not the library's"

echo "== what the libraries export is what the header declares"
tr '\n' ' ' <"$prefix/include/runnel.h" | grep -oE 'RUNNEL_API [^;(]*\brunnel_[a-z_]+\(' |
    grep -oE 'runnel_[a-z_]+\($' | tr -d '(' | sort >"$work/declared"
[ -s "$work/declared" ] || fail "no declarations found in runnel.h"
exported() { nm --defined-only "$@" | awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' | sort; }
exported -D "$prefix/lib/librunnel.so" >"$work/exported"
diff "$work/declared" "$work/exported" || fail "declared (<) and exported by librunnel.so (>) differ"
exported -g "$prefix/lib/librunnel.a" >"$work/exported"
diff "$work/declared" "$work/exported" || fail "declared (<) and exported by librunnel.a (>) differ"

echo "== the library asks for nothing that only the server and the program use"
for name in jansson event curl edit nettle zip; do
    ! readelf -d "$prefix/lib/librunnel.so" | grep -q "NEEDED.*lib$name" || fail "librunnel.so needs $name"
    ! grep -q "$name" "$prefix/lib/pkgconfig/runnel.pc" || fail "runnel.pc asks for $name"
    ! grep -qri "$name" "$prefix/lib/cmake" || fail "the CMake package asks for $name"
done

echo "== pkg-config: shared, static, C++"
# A moved installation must work as well: nothing may remember the first prefix.
mv "$prefix" "$work/moved"
prefix=$work/moved
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
ask=$source_dir/examples/ask.c
read -ra cflags <<<"$(pkg-config --cflags runnel)"
read -ra shared <<<"$(pkg-config --libs runnel)"
read -ra static <<<"$(pkg-config --static --libs runnel | sed 's/-lrunnel/-l:librunnel.a/')"
gcc -std=gnu11 "${strict[@]}" "${cflags[@]}" "$ask" "${shared[@]}" -o "$work/ask-shared"
gcc -std=gnu11 "${strict[@]}" "${cflags[@]}" "$ask" "${static[@]}" -o "$work/ask-static"
g++ -x c++ -std=c++11 "${strict[@]}" "${cflags[@]}" "$ask" "${shared[@]}" -o "$work/ask-cpp"
gcc -std=gnu11 "${strict[@]}" "${cflags[@]}" "$source_dir/examples/many.c" "${shared[@]}" -o "$work/many"
g++ -x c++ -std=c++11 "${strict[@]}" "${cflags[@]}" "$source_dir/examples/many.c" "${shared[@]}" -o "$work/many-cpp"
printf '#include <runnel.h>\nint main(void) { return runnel_version() == 0; }\n' >"$work/plain.c"
gcc -std=c99 "${strict[@]}" "${cflags[@]}" "$work/plain.c" "${shared[@]}" -o "$work/plain"
"$work/plain"

echo "== a program with functions that are called as the library's own are"
same=$source_dir/tests/install/same_names.c
gcc -std=c99 "${strict[@]}" "${cflags[@]}" "$same" "${static[@]}" -o "$work/same-static"
g++ -x c++ -std=c++11 "${strict[@]}" "${cflags[@]}" "$same" "${static[@]}" -o "$work/same-cpp"
gcc -std=c99 -rdynamic "${strict[@]}" "${cflags[@]}" "$same" "${shared[@]}" -o "$work/same-shared"
model=() # to answer with, where there is one
[ ! -f "$models/smollm2-135m.gguf" ] || model=("$models/smollm2-135m.gguf")
for program in same-static same-cpp same-shared; do
    "$work/$program" "${model[@]}" || fail "$program"
done

echo "== a program that was built against the first header of this soname"
readelf -d "$prefix/lib/librunnel.so" | grep -q 'SONAME.*librunnel\.so\.1\]' || fail "another soname: keep a header of its own for this test"
mkdir "$work/first"
cp "$source_dir/tests/install/soname1.h" "$work/first/runnel.h"
for header in "$work/first" "$prefix/include"; do
    gcc -std=gnu11 "${strict[@]}" -I "$header" "$source_dir/tests/install/offsets.c" -o "$work/offsets"
    "$work/offsets" >"$work/offsets-$(basename "$header")"
done
diff "$work/offsets-first" "$work/offsets-include" || fail "a field that the first header has lies elsewhere now"
gcc -std=gnu11 "${strict[@]}" -I "$work/first" "$ask" -L "$prefix/lib" -lrunnel -o "$work/ask-first"
gcc -std=gnu11 "${strict[@]}" -I "$work/first" "$source_dir/examples/many.c" -L "$prefix/lib" -lrunnel -o "$work/many-first"

echo "== CMake: shared, static"
cmake -S "$source_dir/tests/install" -B "$work/asker" -DASK_SOURCE="$ask" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "find_package(runnel)"; }
cmake --build "$work/asker" >"$work/log" 2>&1 || { cat "$work/log"; fail "the CMake project"; }

needs_library() { readelf -d "$1" | grep -q 'NEEDED.*librunnel'; }
for program in ask-shared ask-cpp asker/ask_runnel; do
    needs_library "$work/$program" || fail "$program does not use the shared library"
done
for program in ask-static asker/ask_runnel_static; do
    ! needs_library "$work/$program" || fail "$program uses the shared library"
done

echo "== running"
for program in ask-shared ask-static ask-cpp ask-first asker/ask_runnel asker/ask_runnel_static; do
    status=0
    message=$("$work/$program" "$work/missing.gguf" hello 2>&1) || status=$?
    [[ $status = 1 && $message == *missing.gguf* ]] || fail "$program with a missing model: status $status, $message"
done
if [ -f "$models/smollm2-135m.gguf" ]; then
    # The same request, the same seed: the same answer, whichever library.
    for program in ask-shared ask-first asker/ask_runnel_static; do
        "$work/$program" "$models/smollm2-135m.gguf" "What is the capital of France?" 24 >"$work/answer-${program##*/}"
        [ "$(wc -c <"$work/answer-${program##*/}")" -gt 3 ] || fail "$program answered nothing"
    done
    "$work/many" "$models/smollm2-135m.gguf" "What is water?" "Name a colour." >"$work/many-answers"
    [ "$(grep -c 'the first one after' "$work/many-answers")" = 2 ] || fail "two questions at once were not answered"
    "$work/many-first" "$models/smollm2-135m.gguf" "What is water?" "Name a colour." >"$work/many-answers"
    [ "$(grep -c 'the first one after' "$work/many-answers")" = 2 ] || fail "the first header: two questions were not answered"
    diff "$work"/answer-* || fail "the shared and the static library answer differently"
fi
[ -f "$models/smollm2-135m.gguf" ] || echo "no smollm2-135m.gguf: nothing was asked"
echo "all passed"
