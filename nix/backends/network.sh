# shellcheck shell=bash disable=SC2034,SC2154  # joined between common.sh and bubblewrap.sh
#
# The network of a payload, by --network:
#
#   none       a network namespace of its own with nothing but a loopback
#   allowlist  the same; /run/csb/egress leads to its egress proxy, behind 127.0.0.1:3128
#   full       the internet through pasta, in a namespace whose rules the payload cannot touch; nothing
#              of the host, of networks beside it, or of what clouds keep at link-local addresses
#   host       the host's own network, unchanged
#
# pasta makes a user and a pid namespace too, so the launcher starts anew in there: outside it finds
# what only the outside knows (go_through_pasta), inside it sets the rules (take_network).

PROXY=http://127.0.0.1:3128
RESOLVER=169.254.1.53 # inside; pasta hands what is asked there to the host's own resolver

# What no public network uses, and what leads back (RFC 6890): loopback, private, shared, link-local
# with the clouds' metadata, benchmarks, multicast, reserved. The egress proxy has the same lists, in
# addresses.py; a test compares them.
REFUSED=(
  0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16 169.254.0.0/16 172.16.0.0/12
  192.0.0.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 224.0.0.0/4 240.0.0.0/4
)
# Of IPv6 these alone are the internet, the latter for hosts that reach IPv4 by NAT64; all else, such as
# loopback, private, link-local, mapped, is refused.
INTERNET6=(2000::/3 64:ff9b::/96)
# And of these not: protocols' own with Teredo, 6to4, NAT64 of each of those above.
REFUSED6=(
  2001::/23 2002::/16
  64:ff9b::/104 64:ff9b::a00:0/104 64:ff9b::6440:0/106 64:ff9b::7f00:0/104 64:ff9b::a83f:8110
  64:ff9b::a9fe:0/112 64:ff9b::ac10:0/108 64:ff9b::c000:0/120 64:ff9b::c058:6300/120
  64:ff9b::c0a8:0/112 64:ff9b::c612:0/111 64:ff9b::e000:0/100 64:ff9b::f000:0/100
)

check_network() {
  case $network in
    none | full | host) [[ -z $egress_dir ]] || die "--egress-dir is for --network allowlist" ;;
    allowlist) [[ -d $egress_dir ]] || die '--network allowlist needs the --egress-dir of its proxy' ;;
    *) die "--network $network is none of none, allowlist, full, host" ;;
  esac
  [[ $network != full || -n ${CSB_PASTA:-} ]] || die '--network full needs pasta, which is not installed'
  [[ $network != full || -n ${CSB_NFT:-} ]] || die '--network full needs nft, which is not installed'
  [[ $network != allowlist && $network != host || -n ${CSB_PYTHON:-} ]] ||
    die "--network $network needs python3, which is not installed"
}

# Append the network to args, and what leads out of it.
network_args() {
  case $network in
    none | allowlist) args+=(--unshare-net) ;;
    # Without a namespace of its own the host's abstract sockets are in reach: Landlock keeps them out.
    host) around=("$CSB_PYTHON" -I -S "$CSB_SHARE/scope.py") ;;
  esac
}

# After /run/csb was made.
egress_args() {
  [[ $network == allowlist ]] || return 0
  args+=(--ro-bind "$egress_dir" /run/csb/egress)
  local name
  for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; do
    args+=(--setenv "$name" "$PROXY")
  done
  for name in no_proxy NO_PROXY; do
    args+=(--setenv "$name" 'localhost,127.0.0.1,::1')
  done
  args+=(--setenv NODE_USE_ENV_PROXY 1 --setenv CSB_PROXY "$PROXY")
}

# Put into `resolver` what the payload shall find in its resolv.conf.
find_resolver() {
  resolver='# no network'
  case $network in
    # edns0: so that an answer need not come by TCP, which not every pasta hands on.
    full) printf -v resolver 'nameserver %s\noptions edns0' "$RESOLVER" ;;
    host) [[ ! -f /etc/resolv.conf ]] || resolver=$(</etc/resolv.conf) ;;
  esac
}

# go_through_pasta ARGUMENT...: start again inside. The project stays open as this folder, if it is known
# yet, for /proc shows nothing of the host's processes to another user namespace; so does what relative
# paths of the command line are relative to.
go_through_pasta() {
  [[ $network == full && -z $inside ]] || return 0
  local own=() near=()
  own_addresses
  near_networks
  local options=(--quiet --foreground --config-net --no-map-gw -t none -u none -T none -U none
    --dns-forward "$RESOLVER")
  heal_pipe
  # With a /proc of that pid namespace: bwrap looks its child up there, and fails if the host, by
  # chance, has no process of that number. What the host mounts while we wait inside is to be seen, and
  # what it unmounts not to be kept.
  exec -c ${healed[@]+"${healed[@]}"} "$CSB_PASTA" "${options[@]}" -- "$CSB_SETPRIV" --pdeathsig KILL \
    "${CSB_SETPRIV%/*}/unshare" --propagation slave --mount-proc "$CSB_BASH" -p "$0" --inside "$base" --outside "${own[*]} ${near[*]}" "$@"
}

# Debian 12's pasta gives up if SIGPIPE was ignored by who started us; a shell cannot undo that.
heal_pipe() {
  local key value
  healed=()
  while read -r key value; do
    [[ $key != SigIgn: ]] || break
  done </proc/self/status
  (((16#$value & 16#1000) == 0)) || healed=("$CSB_ENV" --default-signal=PIPE)
}

# Put the host's addresses into `own`: it serves on all of them, and would be reached by any. Into
# `near` go the networks of those of IPv6: of them it makes itself new ones from day to day.
own_addresses() {
  local line lines=() last='' hex size
  mapfile -t lines </proc/net/fib_trie
  for line in "${lines[@]}"; do
    case $line in
      *'|-- '*) last=${line##*|-- } ;;
      *'/32 host LOCAL'*) [[ $last == 127.* || " ${own[*]} " == *" $last "* ]] || own+=("$last") ;;
    esac
  done
  [[ -e /proc/net/if_inet6 ]] || return 0
  while read -r hex _ size _; do
    hex=${hex:0:4}:${hex:4:4}:${hex:8:4}:${hex:12:4}:${hex:16:4}:${hex:20:4}:${hex:24:4}:${hex:28:4}
    [[ $hex != fe80:* && $hex != 0000:0000:* ]] || continue
    own+=("$hex")
    [[ $size == 80 ]] || near_network "$hex" "$((16#$size))" 16 # in hexadecimal: 128
  done </proc/net/if_inet6
}

# Put into `near` the networks that begin at the host's own links: neighbours there trust each other
# more than the internet. A link without neighbours (type 1 is Ethernet and what looks like it) may be
# a tunnel, and what it leads to the internet itself.
near_networks() {
  local device to via flags mask size type zero=00000000
  # Flags: up, but no gateway and not rejected; as those of IPv6, whose own addresses have one more.
  while read -r device to via flags _ _ _ mask _; do
    [[ $via == "$zero" && $device != '*' ]] || continue # of the title, and what leads nowhere
    (((16#$flags & 16#203) == 1)) || continue
    on_ethernet "$device" || continue
    for ((size = 0, mask = 16#$mask; mask; mask >>= 1)); do size=$((size + (mask & 1))); done
    to=$((16#${to:6:2})).$((16#${to:4:2})).$((16#${to:2:2})).$((16#${to:0:2}))
    near_network "$to" "$size" 8
  done </proc/net/route
  [[ -e /proc/net/ipv6_route ]] || return 0
  while read -r to size _ _ via _ _ _ flags device; do
    [[ $via == "$zero$zero$zero$zero" && $to != fe80* && $to != ff* ]] || continue
    (((16#$flags & 16#80000203) == 1)) || continue
    on_ethernet "$device" || continue
    to=${to:0:4}:${to:4:4}:${to:8:4}:${to:12:4}:${to:16:4}:${to:20:4}:${to:24:4}:${to:28:4}
    near_network "$to" "$((16#$size))" 16
  done </proc/net/ipv6_route
}

on_ethernet() {
  local type=1
  [[ ! -r /sys/class/net/$1/type ]] || read -r type <"/sys/class/net/$1/type"
  [[ $type == 1 ]]
}

# near_network ADDRESS SIZE LEAST: what is wider than LEAST is no network but a way to the internet. The
# private ones that a host may have by the thousand, one for each container, are refused anyway.
near_network() {
  case $1 in 10.* | fc* | fd*) return 0 ;; esac
  (($2 < $3)) || [[ " ${near[*]} " == *" $1/$2 "* ]] || near+=("$1/$2")
}

# Inside pasta's namespaces, before anything of the payload: see that they are those, and set rules.
take_network() {
  [[ -n $inside ]] || return 0
  [[ $network == full && $outside =~ ^[0-9a-f.:/\ ]*$ ]] || die '--inside is not for you'
  local line lines=() found='' user
  read -r _ user _ </proc/self/uid_map
  ((user != 0)) || die 'refusing to run a payload as root'
  # Its interface goes with pasta, so it lives, and its end, from now on, is ours (setpriv, above).
  mapfile -t lines </proc/net/dev
  for line in "${lines[@]:2}"; do
    [[ $line =~ ^\ *lo: ]] || found=1
  done
  [[ -n $found ]] || die 'pasta has given no network interface; is the host connected?'
  make_rules
  "$CSB_NFT" -f - <<<"$rules" || die 'nft could not set the rules of the network'
}

# Put into `rules` what nft is to set. The payload is in a user namespace below the one that owns this
# network, so it cannot change them.
make_rules() {
  local address own4='' own6='' near4='' near6='' IFS=, reject='jump refuse'
  local refused="${REFUSED[*]}" refused6="${REFUSED6[*]}" internet6="${INTERNET6[*]}"
  IFS=' '
  for address in $outside; do
    case $address in
      *:*/*) near6+=",$address" ;;
      */*) near4+=",$address" ;;
      *:*) own6+=",$address" ;;
      *) own4+=",$address" ;;
    esac
  done
  [[ -z $own4 ]] || own4="ip daddr { ${own4#,} } $reject"
  [[ -z $own6 ]] || own6="ip6 daddr { ${own6#,} } $reject"
  [[ -z $near4 ]] || near4="elements = { ${near4#,} }"
  [[ -z $near6 ]] || near6="elements = { ${near6#,} }"
  # Sets with names, for only those may have elements that overlap.
  rules="table inet csb {
set near4 { type ipv4_addr; flags interval; auto-merge; $near4
}
set near6 { type ipv6_addr; flags interval; auto-merge; $near6
}
chain refuse {
meta l4proto tcp reject with tcp reset
reject with icmpx type admin-prohibited
}
chain out {
type filter hook output priority 0; policy accept;
oif \"lo\" accept
ip daddr $RESOLVER udp dport 53 accept
icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
ip daddr { $refused } $reject
ip6 daddr != { $internet6 } $reject
ip6 daddr { $refused6 } $reject
ip6 daddr & 0:0:0:0:fdff:ffff:: == 0:0:0:0:0:5efe:: $reject
$own4
$own6
ip daddr @near4 $reject
ip6 daddr @near6 $reject
}
}"
}
