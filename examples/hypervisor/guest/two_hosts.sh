#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Boots a guest on one host and has it move to another, over mutual TLS: two
# network namespaces with a link between them, and a disk that both reach.
#
#     two_hosts.sh HYPERVISOR [ARGUMENT...]
#
# Both hypervisors get the arguments, so each does the replacements they ask for;
# the report that they name is that of the host that the guest moved to.
#
# Needs root, ip, nsenter, unshare and openssl, in the PATH or here: without them
# the status is 77.

hypervisor="$1"
shift
PATH="$PATH:/usr/sbin:/sbin"
# What is here goes before a shell's own.
ip=ip openssl=openssl
if [ -x ./ip ]; then ip=./ip; fi
if [ -x ./openssl ]; then openssl=./openssl; fi
work="$(mktemp -d)"
a="" b="" target="" first=""
# With the processes that they are, the namespaces and their link go.
trap 'kill $a $b $target $first 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

die() {
  echo "two_hosts.sh: $*" >&2
  exit 1
}

# cannot WHY: nothing was tried.
cannot() {
  echo "two_hosts.sh: $*" >&2
  exit 77
}

for tool in "$ip" "$openssl" nsenter unshare; do
  command -v "$tool" >/dev/null || cannot "there is no $tool"
done

# certify NAME ADDRESS
certify() {
  printf 'subjectAltName=IP:%s\n' "$2" >"$work/names"
  "$openssl" req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -config "$work/openssl.conf" -subj "/CN=$1" -keyout "$work/$1.key" \
    -out "$work/$1.csr" 2>>"$work/log" &&
    "$openssl" x509 -req -in "$work/$1.csr" -CA "$work/ca.pem" -days 10 \
      -CAkey "$work/ca.key" -CAcreateserial -extfile "$work/names" \
      -out "$work/$1.pem" 2>>"$work/log"
}

# on HOST COMMAND...
on() {
  host="$1"
  shift
  nsenter -t "$host" -n "$@"
}

# wait_for SECONDS COMMAND...
wait_for() {
  left=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    if [ "$left" = 0 ]; then return 1; fi
    sleep 0.2
  done
}

# shellcheck disable=SC2317  # wait_for calls it
is_apart() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

cat >"$work/openssl.conf" <<'END'
[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:TRUE
END
if ! "$openssl" req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
  -days 10 -config "$work/openssl.conf" -subj "/CN=two hosts" \
  -keyout "$work/ca.key" -out "$work/ca.pem" 2>"$work/log" ||
  ! certify a 10.78.0.1 || ! certify b 10.78.0.2; then
  cat "$work/log"
  die "no certificates"
fi

unshare -n sleep 100000 &
a=$!
unshare -n sleep 100000 &
b=$!
if ! wait_for 20 is_apart "$a" || ! wait_for 20 is_apart "$b"; then
  cannot "no network namespaces: this needs root"
fi
"$ip" link add name uplink netns "$a" type veth peer name uplink netns "$b" ||
  die "no link between them"
# connect HOST ADDRESS
connect() {
  on "$1" "$ip" addr add "$2/24" dev uplink && on "$1" "$ip" link set lo up &&
    on "$1" "$ip" link set uplink up
}
if ! connect "$a" 10.78.0.1 || ! connect "$b" 10.78.0.2; then
  die "no link between them"
fi

echo "two hosts: the guest is to move from 10.78.0.1 to 10.78.0.2"
# Not by a function: this is to be its process.
nsenter -t "$b" -n "$hypervisor" "$@" --connect=false --receive --listen=10.78.0.2:7070 \
  --ca="$work/ca.pem" --cert="$work/b.pem" --key="$work/b.key" \
  </dev/null >"$work/target.log" 2>&1 &
target=$!
wait_for 60 grep -q "a guest may come" "$work/target.log" || {
  cat "$work/target.log"
  die "the target does not wait for a guest"
}
status=0
# In the background, so that a signal to this script is not put off.
nsenter -t "$a" -n "$hypervisor" "$@" --json="$work/report" \
  --move-to=10.78.0.2:7070 --listen=10.78.0.1:7070 --ca="$work/ca.pem" \
  --cert="$work/a.pem" --key="$work/a.key" </dev/null &
first=$!
wait "$first" || status=$?
echo "two hosts: the first ended with $status"
if [ "$status" = 0 ]; then
  wait "$target"
  status=$?
fi
echo "two hosts: what the second says"
cat "$work/target.log"
exit "$status"
