#!/usr/bin/env bash
# Brings what `make test` needs beside Python: PostgreSQL, Redis, Chromium, Java, gettext (Debian's packages, as root) and
# Apache Kafka (Maven, into .servers/kafka). What is there already is left alone, so a second run takes no time.
# With CI=true whatever cannot be brought ends the run; elsewhere the tests that need it are left out and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

jars=.servers/kafka
pom=tests/servers/kafka/pom.xml

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
has_chromium() { has chromium || has chromium-browser || has google-chrome; }
# The pom stands beside the jars once all of them are there: another pom (another version) copies them again.
has_jars() { cmp -s "$pom" "$jars/pom.xml"; }

missing_packages() {
    has_postgresql || echo postgresql
    has redis-server || echo redis-server
    has curl || echo curl
    has_chromium || echo chromium
    has java || echo default-jdk-headless
    has ip || echo iproute2
    has msgfmt || echo gettext
    has_jars || has mvn || echo maven
}

install_packages() {
    local packages
    packages=$(missing_packages | xargs)
    if [[ -z $packages ]]; then
        say "PostgreSQL, Redis, Chromium, Java and gettext are installed."
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

copy_jars() {
    if has_jars; then
        say "Apache Kafka is in $jars."
        return
    elif ! has mvn; then
        give_up "Apache Kafka is not in $jars, and there is no Maven (mvn) to copy it with."
        return
    fi
    say "copying Apache Kafka's jars (54 MB) into $jars with Maven ..."
    rm -rf "$jars"
    if quietly mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$jars"; then
        cp "$pom" "$jars/pom.xml"
    else
        give_up "Maven could not copy Apache Kafka's jars; its own words are above."
    fi
}

# Debian's own package may be too old for tests/k8s. Go 1.21 or newer fetches the version that go.mod asks for.
check_go() {
    local version
    version=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    if ((${version:-0} < 21)); then
        give_up "Go 1.21 or newer is missing (https://go.dev/dl/), for the load generator and the Kubernetes manifests."
    fi
}

install_packages
copy_jars
check_go
