# shellcheck shell=bash disable=SC2154  # joined behind a preamble and common.sh, which set CSB_*
#
# egress: become one sandbox's egress proxy, in a small sandbox of its own.
#
#   egress --door DIR --control DIR --log DIR [--allow PATTERN]...
#   egress ... --print-args     show what would run, one argument a line
#   egress --contract           print the version of this command line
#
# It has the host's network, for it is the way out, and reads what a payload sends. So it sees no
# project, no home and nothing of the daemon but these three folders; it starts no process of another
# kind, and keeps apart from the host's abstract sockets (Landlock, by itself).

door='' control='' log='' print='' allow=()
while (($#)); do
  case $1 in
    --contract)
      printf '%s\n' "$CSB_CONTRACT"
      exit
      ;;
    --print-args) print=1 ;;
    --door | --control | --log | --allow)
      (($# > 1)) || die "$1 needs a value" 2
      case $1 in
        --door) door=$2 ;;
        --control) control=$2 ;;
        --log) log=$2 ;;
        --allow) allow+=(--allow "$2") ;;
      esac
      shift
      ;;
    *) die "unknown option $1" 2 ;;
  esac
  shift
done
[[ -n ${CSB_PYTHON:-} ]] || die 'python3 is not installed'
[[ -d $door && -d $control && -d $log ]] || die '--door, --control and --log must be folders' 2
((EUID != 0)) || die 'refusing to run as root'

args=(
  --unshare-user --uid 1000 --gid 1000 --disable-userns --cap-drop ALL
  --unshare-pid --as-pid-1 --unshare-ipc --unshare-uts --unshare-cgroup-try
  --hostname egress --new-session --die-with-parent --seccomp 7
)
root_args args
for name in hosts host.conf gai.conf nsswitch.conf; do
  [[ ! -f /etc/$name ]] || args+=(--ro-bind "/etc/$name" "/etc/$name")
done

# A resolver's file that is a link is replaced, by its folder's owner, whenever the network changes:
# then it is the folder that has to be seen.
resolver=/etc/resolv.conf
if [[ -L $resolver ]]; then
  target=$("$CSB_STAT" -c %N "$resolver")
  target=${target##*" -> '"}
  target=${target%"'"}
  target=${target/#..\//\/}
  if [[ $target == /run/?*/?* && -f $target ]]; then
    args+=(--dir /run --ro-bind "${target%/*}" "${target%/*}" --symlink "$target" "$resolver")
    resolver=''
  fi
fi
[[ -z $resolver || ! -f $resolver ]] || args+=(--ro-bind "$resolver" /etc/resolv.conf)

args+=(
  --proc /proc --dev /dev --size 65536 --tmpfs /tmp
  --ro-bind "$CSB_EGRESS" /run/csb/program
  --bind "$door" /run/csb/door --bind "$control" /run/csb/control --bind "$log" /run/csb/log
  --remount-ro / --chdir / --setenv PATH "$CSB_PATH" --setenv LC_ALL C.UTF-8
)
proxy=("$CSB_PYTHON" -I -S /run/csb/program/__main__.py
  --door /run/csb/door --control /run/csb/control --log /run/csb/log ${allow[@]+"${allow[@]}"})

if [[ -n $print ]]; then
  printf '%s\n' "$CSB_BWRAP" "${args[@]}" -- "${proxy[@]}"
  exit
fi
ulimit -c 0
exec 7<"$CSB_BPF"
close_others 7
exec_bwrap args "${proxy[@]}"
