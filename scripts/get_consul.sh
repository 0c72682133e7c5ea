#!/usr/bin/env bash
# Puts `consul` where the tests find it, as root: Debian's last one (1.8.7, MPL-2.0, suite bullseye), unpacked, not installed.
# The suite is taken from the mirror this machine uses already; later suites do not have the package. Exit 1: not to be had.
set -euo pipefail
command -v consul >/dev/null && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "get_consul: needs root and apt-get" >&2; exit 1; }
mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null |
  grep -oE "https?://[^ ]+/debian/?( |$)" | head -1 | tr -d " " || true)
[ -n "$mirror" ] || { echo "get_consul: no Debian mirror is configured here" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$work/sources.list"
options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false)
cd "$work"
apt-get "${options[@]}" update
apt-get "${options[@]}" download consul
dpkg -x consul_*.deb unpacked
install -m 755 unpacked/usr/bin/consul /usr/local/bin/consul
consul version | head -1
