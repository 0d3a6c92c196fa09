# shellcheck shell=bash disable=SC2034,SC2154  # joined between common.sh and bubblewrap.sh
#
# The launcher's command line: what it says, and what of it is refused at once.

usage() {
  printf '%s\n' "usage: ${0##*/} [--shell] [options] [project-dir] [-- command...]" '' \
    'Runs a command (default: claude; --shell: bash) that sees the project folder at its own path,' \
    'a home of its own, the host'\''s programs read-only, and no network unless asked.' '' \
    '  --home DIR            its home (default: one for this project, kept)' \
    '  --project-source DIR  where the project really lies, if not at project-dir' \
    '  --program PATH        a program or folder outside /usr to show read-only; may be repeated' \
    '  --environment FILE    KEY=VALUE pairs for it, each ended by a NUL' \
    '  --network MODE        none (the default), allowlist, full or host' \
    '  --egress-dir DIR      the folder of its egress proxy'\''s socket, for allowlist' \
    '  --forward NAME        let this in from the host, may be repeated; one of:' \
    "                        ${FORWARD_NAMES[*]}" \
    '  --authority FILE      a certificate (PEM) to trust inside, beside the system'\''s' \
    '  --pids N              how many processes it may have (1024)' \
    '  --tmp-size N          bytes of its /tmp (1 GiB), in memory' \
    '  --shm-size N          bytes of its /dev/shm (512 MiB), in memory' \
    '  --x11-dir DIR --xauthority FILE                a display: the folder of its socket, the key' \
    '  --geometry WxH        size of that display, for programs that choose a window by it' \
    '  --exec-dir DIR --control FIFO --status FIFO    the daemon'\''s channel to the helper' \
    '  --messages FILE       where to complain, instead of stderr' \
    '  --later FIFO FILE     once the FIFO gives a line, obey what is in FILE too: more of the' \
    '                        command line, its words each ended by a NUL' \
    '  --project-is DEV:INODE    begin only if the project is this folder (stat(1), %d:%i)' \
    '  --print-args          show what would be run' \
    '  --contract            print the version of this command line'
}

defaults() {
  fifo='' file='' identity='' shell='' home='' source='' environment='' network=none pids=1024
  x11='' egress_dir='' authority=''
  inside='' outside='' base=$PWD
  tmp_size=1073741824 shm_size=536870912 xauthority='' exec_dir=''
  control='' status='' messages='' print='' geometry='' project=$PWD
  programs=() command=()
}

# parse WORD...: may be called again for more words.
parse() {
  local value
  while (($#)); do
    value=${2:-}
    case $1 in
      --shell) shell=1 ;;
      --print-args) print=1 ;;
      --contract) printf '%s\n' "$CSB_CONTRACT" && exit ;;
      --help) usage && exit ;;
      --)
        command=("${@:2}")
        break
        ;;
      --*)
        (($# > 1)) || die "$1 needs a value, or is unknown; try --help"
        case $1 in
          --home) home=$value ;;
          --project-source) source=$value ;;
          --program) programs+=("$value") ;;
          --environment) environment=$value ;;
          --network) network=$value ;;
          --forward) forwards+=("$value") ;;
          --egress-dir) egress_dir=$value ;;
          --authority) authority=$value ;;
          --inside) inside=$value base=$value project=$value ;; # network.sh's own
          --outside) outside=$value ;;
          --pids) pids=$value ;;
          --tmp-size) tmp_size=$value ;;
          --shm-size) shm_size=$value ;;
          --x11-dir) x11=$value ;;
          --xauthority) xauthority=$value ;;
          --geometry) geometry=$value ;;
          --exec-dir) exec_dir=$value ;;
          --control) control=$value ;;
          --status) status=$value ;;
          --messages) messages=$value ;;
          --project-is) identity=$value ;;
          --later)
            fifo=$value file=${3:-}
            [[ -p $fifo && -n $file ]] || die '--later needs a FIFO and a file'
            shift
            ;;
          *) die "unknown option $1; try --help" ;;
        esac
        shift
        ;;
      *) project=$1 ;;
    esac
    shift
  done
  check_network
  [[ $pids =~ ^[1-9][0-9]{0,6}$ ]] || die "--pids $pids is not a number"
  [[ $tmp_size =~ ^[1-9][0-9]{0,15}$ && $shm_size =~ ^[1-9][0-9]{0,15}$ ]] ||
    die '--tmp-size and --shm-size are numbers of bytes'
  [[ -z $geometry || $geometry =~ ^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$ ]] ||
    die "--geometry $geometry is not WIDTHxHEIGHT"
  [[ -z $home || -d $home ]] || die "--home $home is not a folder"
  [[ -z $control || (-p $control && -p $status && -d $exec_dir) ]] ||
    die '--control, --status and --exec-dir go together'
  local name
  for name in home source project environment x11 xauthority exec_dir egress_dir authority control \
    status messages; do
    local -n path=$name
    [[ -z $path || $path == /* ]] || path=$base/$path
  done
  check_authority
}

