#!/usr/bin/env bash
# Brings what `make test` needs beside Python: PostgreSQL, Redis, Chromium, Java, gettext, Node.js (Debian's packages, as
# root), and into .servers/ Apache Kafka and OpenSearch (Maven), Prometheus (Debian's package) and an example's packages (npm).
# Existing ones are kept, so a second run takes no time.
# With CI=true, a failed download ends the run; elsewhere the tests that need it are skipped and listed.
set -euo pipefail
cd "$(dirname "$0")/.."

example=examples/participant-node
node_packages=.servers/participant-node

say() { printf 'setup: %s\n' "$*"; }

give_up() {
    if [[ ${CI:-} == true || ${CI:-} == 1 ]]; then
        say "$* With CI=true nothing may be missing, so the run ends here." >&2
        exit 1
    fi
    say "$* The tests that need it will be left out."
}

has() { command -v "$1" >/dev/null 2>&1; }
has_postgresql() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
# npm leaves no lock beside the packages, so it is copied there once all of them are installed.
has_node_packages() { cmp -s "$example/package-lock.json" "$node_packages/node_modules/package-lock.json"; }
has_chromium() { has chromium || has chromium-browser || has google-chrome; }
# The pom and the programs stand beside the jars once all of them are there: others (another version) copy them again.
has_jars() {
    local file
    for file in tests/servers/"$1"/{pom.xml,*.java}; do
        [[ ! -e $file ]] || cmp -s "$file" ".servers/$1/${file##*/}" || return 1
    done
}
# javac comes with the JDK, not with a JRE.
has_jdk() { has java && has javac; }

missing_packages() {
    has_postgresql || echo postgresql
    has redis-server || echo redis-server
    has curl || echo curl
    has_chromium || echo chromium
    has_jdk || echo default-jdk-headless
    has ip || echo iproute2
    has msgfmt || echo gettext
    has node || echo nodejs
    has_node_packages || has npm || echo npm
    { has_jars kafka && has_jars opensearch; } || has mvn || echo maven
}

install_packages() {
    local packages
    packages=$(missing_packages | xargs)
    if [[ -z $packages ]]; then
        say "PostgreSQL, Redis, Chromium, Java, gettext and Node.js are installed."
    elif ! has apt-get; then
        give_up "missing: $packages, and there is no apt-get here to install Debian's packages with."
    elif [[ $EUID != 0 ]]; then
        give_up "missing: $packages, and only root may install them (apt-get install $packages)."
    else
        say "installing $packages with apt-get; this can take some minutes ..."
        # shellcheck disable=SC2086 # each word is a package
        apt update && apt install --yes --no-install-recommends $packages ||
            give_up "apt-get could not install $packages; its own words are above."
    fi
}

# Waits for another apt-get that runs at the same time.
apt() {
    DEBIAN_FRONTEND=noninteractive quietly apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@"
}

# Runs a command and shows what it says only when it fails.
quietly() {
    local output
    output=$("$@" 2>&1 </dev/null) || {
        printf '%s\n' "$output" >&2
        return 1
    }
}

# Copies the jars of a server in tests/servers: its folder, its name, and the size of the download. Compiles the folder's
# Java programs.
copy_jars() {
    local from=tests/servers/$1 jars=.servers/$1 name=$2 size=$3
    if has_jars "$1"; then
        say "$name is in $jars."
        return
    elif ! has mvn; then
        give_up "$name is not in $jars, and there is no Maven (mvn) to copy it with."
        return
    fi
    say "copying $name's jars ($size) into $jars with Maven ..."
    rm -rf "$jars"
    if quietly mvn --batch-mode --quiet --file "$from/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$jars" && compile "$from" "$jars"; then
        cp "$from"/{pom.xml,*.java} "$jars" 2>/dev/null || cp "$from/pom.xml" "$jars"
    else
        give_up "$name's jars could not be copied; Maven's own words are above."
    fi
}

compile() {
    local programs
    programs=$(compgen -G "$1/*.java") || return 0
    # shellcheck disable=SC2086 # each word is a file
    quietly javac -cp "$2/*" -d "$2" $programs
}

# Unpacks Prometheus and promtool from Debian's packages: installing them would start a Prometheus. Debian 14 has the release
# of compose.yaml. Where it can't be had, the machine's own, older package has both programs.
unpack_prometheus() {
    local folder=.servers/prometheus work package
    if [[ -x $folder/promtool ]]; then
        say "Prometheus is in $folder."
        return
    elif ! has apt-get; then
        give_up "Prometheus is not in $folder, and there is no apt-get to get Debian's package with."
        return
    fi
    say "unpacking Prometheus (46 MB) into $folder ..."
    work=$(mktemp -d)
    if (cd "$work" && { download_from_debian_14 prometheus promtool || quietly apt-get -qq download prometheus; }); then
        for package in "$work"/*.deb; do dpkg -x "$package" "$work"; done
        mkdir -p "$folder"
        cp "$work"/usr/bin/prom{etheus,tool} "$folder"
    else
        give_up "Prometheus's package could not be had; apt-get's own words are above."
    fi
    rm -rf "$work"
}

# Downloads packages into the current folder, and their list too: the machine's own lists stay as they are.
download_from_debian_14() {
    local mirror from_here
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -1)
    mkdir -p lists/partial
    echo "deb $mirror forky main" >sources.list
    from_here=(-qq -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$PWD/lists"
        -o Dir::Cache="$PWD" -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    quietly apt-get "${from_here[@]}" update && quietly apt-get "${from_here[@]}" download "$@"
}

# Debian's own package may be too old for tests/k8s. Go 1.21 or newer fetches the version that go.mod asks for.
check_go() {
    local version
    version=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    if ((${version:-0} < 21)); then
        give_up "Go 1.21 or newer is missing (https://go.dev/dl/), for the load generator and the Kubernetes manifests."
    fi
}

install_node_packages() {
    if has_node_packages; then
        say "the packages of $example are in $node_packages."
        return
    elif ! has npm; then
        give_up "the packages of $example are not in $node_packages, and there is no npm to install them with."
        return
    fi
    say "installing the packages of $example into $node_packages with npm ..."
    mkdir -p "$node_packages"
    cp "$example"/package*.json "$node_packages"
    if quietly env -C "$node_packages" npm ci --ignore-scripts --no-audit --no-fund; then
        cp "$example/package-lock.json" "$node_packages/node_modules/package-lock.json"
    else
        give_up "npm could not install the packages of $example; its own words are above."
    fi
}

install_packages
copy_jars kafka "Apache Kafka" "54 MB"
copy_jars opensearch OpenSearch "53 MB"
unpack_prometheus
check_go
install_node_packages
