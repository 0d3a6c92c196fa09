# shellcheck shell=bash
# What all launchers share. A launcher is: a preamble of variables, this file, its own body.
# The preamble (written by csb_mcp/host/launchers.py or by a .nix file) sets:
#
#   CSB_CONTRACT  version of the launchers' command line, compared by the daemon
#   CSB_LAYOUT    fhs: the host's own /usr is the root; nix: /nix/store is
#   CSB_BWRAP CSB_SETPRIV CSB_STAT CSB_MKDIR   programs that are run outside, absolute paths
#   CSB_BASH CSB_ENV CSB_SCRIPT CSB_SETSID CSB_XVFB CSB_CHROMIUM
#                 programs that are run inside, absolute paths there; the last two may be empty
#   CSB_PATH      PATH inside, without /opt/csb/bin
#   CSB_SHARE     folder that is bound at /opt/csb: helper.sh, bin/, chromium-policy.json
#   CSB_BPF       seccomp filter for this machine
#   CSB_PYTHON    python3, of the same path outside and inside; may be empty, as may the next two
#   CSB_PASTA CSB_NFT      programs that are run outside for --network full
#   CSB_EGRESS    folder of the egress proxy's program
#   CSB_LWM       optional: the window manager, absolute path inside
#   CSB_XKB CSB_XKBCOMP    optional: folder with the X server's keymap, compiled; the compiler
#
# shellcheck disable=SC2154  # the preamble sets them

around=() # words to go through on the way to bwrap

die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit "${2:-125}"
}

# root_args ARRAY: append the read-only system: programs, libraries, and of /etc only what programs
# need to run. Never passwd, group, hosts, resolv.conf: those are made for the sandbox.
root_args() {
  local -n _root=$1
  local name
  case $CSB_LAYOUT in
    fhs)
      _root+=(--ro-bind /usr /usr)
      for name in bin sbin lib lib32 lib64 libx32; do
        if [[ -L /$name ]]; then
          _root+=(--symlink "usr/$name" "/$name")
        elif [[ -d /$name ]]; then
          _root+=(--ro-bind "/$name" "/$name")
        fi
      done
      ;;
    nix)
      _root+=(--ro-bind /nix/store /nix/store --symlink "$CSB_BASH" /bin/sh
        --symlink "$CSB_BASH" /bin/bash --symlink "$CSB_ENV" /usr/bin/env)
      ;;
    *) die "unknown layout $CSB_LAYOUT" ;;
  esac
  for name in ld.so.cache alternatives fonts localtime ssl/certs ssl/openssl.cnf pki/tls \
    pki/ca-trust/extracted mime.types protocols services X11/app-defaults; do
    [[ ! -e /etc/$name ]] || _root+=(--ro-bind "/etc/$name" "/etc/$name")
  done
}

# close_others FD...: close every inherited descriptor above 2 except those named. bwrap would hand
# them all to the payload. Those marked close-on-exec (bash's own script) close themselves.
close_others() {
  local keep=" $* " path fd key value
  for path in /proc/self/fd/*; do
    fd=${path##*/}
    # The glob's own descriptor is listed too, and is gone by now.
    [[ $fd -gt 2 && $keep != *" $fd "* && -e /proc/self/fd/$fd ]] || continue
    while read -r key value; do
      [[ $key == flags: ]] || continue
      (((8#$value & 8#2000000) != 0)) || exec {fd}>&-
      break
    done <"/proc/self/fdinfo/$fd"
  done
}

# exec_bwrap ARRAY COMMAND...: become bwrap, by way of the words in `around`, if there are any. Its arguments go by descriptor, for /proc/PID/cmdline is
# world-readable; its environment is empty, for /proc/1/environ inside would show it (--clearenv
# clears only the payload's).
exec_bwrap() {
  local -n _args=$1
  shift
  exec 8< <(printf '%s\0' "${_args[@]}")
  exec -c ${around[@]+"${around[@]}"} "$CSB_BWRAP" --args 8 -- "$@"
}
