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
# with the clouds' metadata, benchmarks, multicast, reserved.
REFUSED=(
  0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16 169.254.0.0/16 172.16.0.0/12
  192.0.0.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 224.0.0.0/4 240.0.0.0/4
)
# The same of IPv6, and its wrappings of IPv4: mapped, 6to4, Teredo, NAT64 of each of those above.
REFUSED6=(
  ::/96 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 2001::/32 2002::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
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

# go_through_pasta ARGUMENT...: start again inside. The project stays open as this folder, for /proc
# shows nothing of the host's processes to another user namespace; so does what relative paths of the
# command line are relative to.
go_through_pasta() {
  [[ $network == full && -z $inside ]] || return 0
  local own=()
  own_addresses
  local options=(--quiet --foreground --config-net --no-map-gw -t none -u none -T none -U none
    --dns-forward "$RESOLVER")
  heal_pipe
  exec -c ${healed[@]+"${healed[@]}"} "$CSB_PASTA" "${options[@]}" -- "$CSB_SETPRIV" --pdeathsig KILL \
    "$CSB_BASH" -p "$0" --inside "$base" --outside "${own[*]}" "$@"
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

# Put the host's addresses into `own`: it serves on all of them, and would be reached by any.
own_addresses() {
  local line lines=() last='' hex
  mapfile -t lines </proc/net/fib_trie
  for line in "${lines[@]}"; do
    case $line in
      *'|-- '*) last=${line##*|-- } ;;
      *'/32 host LOCAL'*) [[ $last == 127.* || " ${own[*]} " == *" $last "* ]] || own+=("$last") ;;
    esac
  done
  [[ -e /proc/net/if_inet6 ]] || return 0
  while read -r hex _; do
    hex=${hex:0:4}:${hex:4:4}:${hex:8:4}:${hex:12:4}:${hex:16:4}:${hex:20:4}:${hex:24:4}:${hex:28:4}
    [[ $hex == fe80:* || $hex == 0000:0000:* ]] || own+=("$hex")
  done </proc/net/if_inet6
}

# Inside pasta's namespaces, before anything of the payload: see that they are those, and set rules.
take_network() {
  [[ -n $inside ]] || return 0
  [[ $network == full && $outside =~ ^[0-9a-f.:\ ]*$ ]] || die '--inside is not for you'
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
  local address own4='' own6='' IFS=, reject='jump refuse'
  local refused="${REFUSED[*]}" refused6="${REFUSED6[*]}"
  IFS=' '
  for address in $outside; do
    if [[ $address == *:* ]]; then own6+=",$address"; else own4+=",$address"; fi
  done
  [[ -z $own4 ]] || own4="ip daddr { ${own4#,} } $reject"
  [[ -z $own6 ]] || own6="ip6 daddr { ${own6#,} } $reject"
  rules="table inet csb {
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
ip6 daddr { $refused6 } $reject
ip6 daddr & 0:0:0:0:fdff:ffff:: == 0:0:0:0:0:5efe:: $reject
$own4
$own6
}
}"
}
