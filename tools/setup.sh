#!/usr/bin/env bash
# tools/setup.sh demo|test: makes a machine ready. Installs the Debian packages that are missing
# (as root or through sudo), creates the virtual environment and installs the project into it.
# What is there already is left alone; when all is there this takes a moment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

want=${1:?usage: tools/setup.sh demo|test}
venv=${VENV:-.venv}
missing=()

# need <Debian package> <command that succeeds when it is there>
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

can_compile() {
    echo '#include <stdio.h>' | cc -fsyntax-only -x c -
}

has_python_header() {
    python3 -c 'import os, sysconfig
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'
}

has_postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' || command -v initdb
}

find_missing() {
    missing=()
    need gcc command -v cc
    need libc6-dev can_compile
    need pkg-config command -v pkg-config
    need python3-dev has_python_header
    need python3-venv python3 -c 'import venv, ensurepip'
    need librabbitmq-dev pkg-config --exists librabbitmq
    need libyajl-dev pkg-config --exists yajl
    need libhiredis-dev pkg-config --exists hiredis
    need libsqlite3-dev pkg-config --exists sqlite3
    need libssl-dev pkg-config --exists openssl
    if [ "$want" = test ]; then
        need rabbitmq-server test -x /usr/lib/rabbitmq/bin/rabbitmq-server
        need redis-server command -v redis-server
        need memcached command -v memcached
        need postgresql has_postgresql
        need openssl command -v openssl
    fi
}

die() {
    printf 'pyceleryc: %s\n' "$@" >&2
    exit 1
}

# The tests start servers of their own. Without this file the package starts one at once, which
# fails where there is no init and then fails the installation.
forbid_service_start() {
    [ -e /usr/sbin/policy-rc.d ] && return
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod 755 /usr/sbin/policy-rc.d
}

install_missing() {
    local line="apt-get install -y --no-install-recommends ${missing[*]}"
    command -v apt-get >/dev/null || die "these Debian packages, or their like, are missing:" \
        "    ${missing[*]}" "Install them with this system's package manager and try again."
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "some packages are missing; as root, run:" \
            "    apt-get update && $line"
        sudo=sudo
    fi
    echo "installing ${missing[*]}"
    forbid_service_start
    $sudo apt-get update -q || die "apt-get update failed (see above); the packages still to come:" \
        "    ${missing[*]}"
    $sudo env DEBIAN_FRONTEND=noninteractive $line -q || die "this failed (see above):" "    $line"
    find_missing
    [ ${#missing[@]} = 0 ] || die "installed, but still not usable: ${missing[*]}" \
        "Is $(command -v python3) the system's python3, and PATH as usual?"
}

# The copy of pyproject.toml that is kept says what the environment was made from.
make_venv() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or later is needed, python3 is $(python3 --version)"
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        echo "creating $venv"
        python3 -m venv --clear "$venv"
    fi
    if cmp -s pyproject.toml "$venv/pyproject.installed"; then
        touch "$venv/pyproject.installed" # for make
        return
    fi
    echo "installing pyceleryc and what it needs into $venv"
    "$venv/bin/pip" install -q --disable-pip-version-check 'setuptools>=77'
    PYCELERYC_WERROR=1 "$venv/bin/pip" install -q --disable-pip-version-check \
        --no-build-isolation -e '.[test]'
    cp pyproject.toml "$venv/pyproject.installed"
}

find_missing
[ ${#missing[@]} = 0 ] || install_missing
make_venv
if [ "$want" = test ]; then
    tools/peer.sh >/dev/null || die "tools/peer.sh failed (see above); the tests compare with the real Celery"
fi
