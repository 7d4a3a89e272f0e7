#!/bin/sh
# Generates clients of docs/openapi.yaml into var/clients: a Python package and a TypeScript package. `make client` runs it with
# the project's Python. The generators are pinned, have environments of their own, and are installed again only if the pinned
# versions have changed.
set -eu
cd "$(dirname "$0")/.."
python=$1
out=var/clients

has_npm() { command -v npm >/dev/null 2>&1; }

install_python_generator() {
    cmp -s clients/python/requirements.txt $out/generator/requirements.txt && return
    "$python" -m venv --clear $out/generator
    $out/generator/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
        --only-binary :all: -r clients/python/requirements.txt
    cp clients/python/requirements.txt $out/generator/requirements.txt
}

generate_python() {
    PATH=$PWD/$out/generator/bin:$PATH $out/generator/bin/openapi-python-client generate --path $out/openapi.json \
        --config clients/python/config.yaml --meta uv --output-path $out/python --overwrite --fail-on-warning
    cp clients/python/example.py $out/python/
}

install_typescript_generator() {
    cmp -s clients/typescript/package-lock.json $out/typescript/node_modules/package-lock.json && return
    npm ci --prefix $out/typescript --prefer-offline --no-audit --no-fund --loglevel error
    cp clients/typescript/package-lock.json $out/typescript/node_modules/package-lock.json
}

generate_typescript() {
    mkdir -p $out/typescript
    cp -R clients/typescript/. $out/typescript/
    install_typescript_generator
    npm run --prefix $out/typescript --silent build
}

mkdir -p $out
"$python" clients/bundle.py $out/openapi.json
install_python_generator
generate_python
echo "Python client: $out/python (package signup_sync_client)"
if has_npm; then
    generate_typescript
    echo "TypeScript client: $out/typescript"
else
    echo "Node.js 20 or newer with npm is needed for the TypeScript client, and is not installed." >&2
    exit 1
fi
