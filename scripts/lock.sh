#!/bin/sh
# Resolves once and writes the lock's views. uv.lock itself records the address of the package index it was made from, so it
# stays out of the repository (docs/adr/0006-pins.md); these views hold names, versions and hashes only.
# Without a uv.lock in the checkout this takes the newest versions that pyproject.toml permits.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.tools/bin/uv}

"$uv" lock
export_view() {
    view=$1
    shift
    "$uv" export --frozen "$@" --no-emit-workspace --no-header --no-annotate --quiet --output-file "locks/$view.txt"
}
export_view server --no-default-groups --group server
export_view runner --no-default-groups --group runner
export_view dev
for tool in tools build go; do
    "$uv" pip compile "locks/$tool.in" --output-file "locks/$tool.txt" --no-config --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --quiet
done
if grep -n '://' locks/*; then
    echo "an address of an index or host got into locks/: see above" >&2
    exit 1
fi
echo "locks/: $(grep -c '^[a-z0-9]' locks/dev.txt) packages"
