# shellcheck shell=bash disable=SC2154,SC2034  # joined behind a preamble and common.sh
#
# What is let into a sandbox from the host: each thing by its name, nothing that was not named.
# docs/forwarding.md says of each what a sandbox gets, and what it could do with it. (What coreutils
# has lies beside its mkdir.)
#
#   --forward NAME         by hand: it is looked for where the user's session has it
#   --forward KIND=VALUE   from the daemon, which has found and checked it
#
# A socket is bound by itself, read-only (so it can be neither removed nor replaced; connecting needs
# no more), below /run/csb/forward. Where its service makes it anew, that one is not seen.
FORWARD_NAMES=(git ssh-agent gh nix-daemon dbus gpu audio wayland display)
forwards=()  # as asked for
forwarded=() # KIND=VALUE
git_identity=$'[user]\n\tname = agent\n\temail = agent@csb.invalid' # the user's is not lent unasked
lent=()      # NAME=VALUE for the payload's environment: never in arguments
x_cookie='' bus='' bus_door='' by_hand=''
forward_words=() # what goes through pasta

# The only service of the session bus that is talked to. Not the portals: to them the proxy is a
# program of the host like any other, which may start programs, read the screen and open addresses.
BUS_RULES=(
  '--call=org.freedesktop.Notifications=org.freedesktop.Notifications.*@/org/freedesktop/Notifications'
  '--broadcast=org.freedesktop.Notifications=org.freedesktop.Notifications.*@/org/freedesktop/Notifications'
)

# Behind pasta there is neither the session's environment nor a way back, so it is looked for before.
forward_find() {
  local each name asked=' '
  for each in ${forwards[@]+"${forwards[@]}"}; do
    case $each in
      git=*) git_identity=$(<"${each#git=}") ;;
      x-cookie=*) x_cookie=$(<"${each#x-cookie=}") ;;
      lent=*) read_lent "${each#lent=}" ;;
      *=*) forwarded+=("$each") ;;
      *)
        [[ -z $inside ]] || continue
        for name in "${FORWARD_NAMES[@]}" ''; do
          [[ $name != "$each" ]] || break
        done
        [[ -n $name ]] || die "--forward $each is none of: ${FORWARD_NAMES[*]}"
        [[ $asked != *" $name "* ]] || continue
        asked+="$name "
        by_hand=1
        "find_${name//-/_}"
        ;;
    esac
  done
}

# keep_for_inside: what was found outside, as arguments; what is secret of it in a file that is removed
# as soon as it was read.
keep_for_inside() {
  local each file
  [[ -n $by_hand ]] || return 0
  for each in ${forwarded[@]+"${forwarded[@]}"}; do
    forward_words+=(--forward "$each")
  done
  file=$("${CSB_MKDIR%/*}/mktemp" -- "${XDG_RUNTIME_DIR:-/tmp}/csb-lent.XXXXXXXX") ||
    die '--forward: no file can be made in XDG_RUNTIME_DIR'
  printf '%s\0' "$git_identity" "$x_cookie" ${lent[@]+"${lent[@]}"} >"$file"
  forward_words+=(--forward "lent=$file")
  # Should pasta, or what comes before it is read, fail.
  (
    trap '' HUP INT QUIT TERM
    close_others
    while [[ -e $file ]] && kill -0 $$ 2>/dev/null; do
      "${CSB_MKDIR%/*}/sleep" 0.2
    done
    "${CSB_MKDIR%/*}/rm" -f -- "$file"
  ) </dev/null >/dev/null 2>&1 &
}

read_lent() {
  local values=()
  mapfile -d '' -t values <"$1"
  "${CSB_MKDIR%/*}/rm" -f -- "$1"
  git_identity=${values[0]} x_cookie=${values[1]} lent=("${values[@]:2}")
}

# found KIND SOCKET ADVICE
found() {
  [[ -S ${2:-} ]] || die "--forward $1: there is no socket ${2:-}; $3"
  [[ -O $2 || $1 == display ]] || die "--forward $1: $2 is somebody else's; $3"
  local real
  real=$("${CSB_MKDIR%/*}/realpath" -e -- "$2") && forwarded+=("$1=$real")
}

find_git() {
  local key value
  [[ -n ${CSB_GIT:-} ]] || die '--forward git: git is not installed'
  git_identity='[user]'
  for key in name email; do
    value=$("$CSB_GIT" config --global --get "user.$key") ||
      die "git has no user.$key: git config --global user.$key ..."
    value=${value//\\/\\\\}
    git_identity+=$'\n\t'"$key = \"${value//\"/\\\"}\""
  done
}

find_ssh_agent() {
  found ssh-agent "${SSH_AUTH_SOCK:-}" 'start an agent, ssh-agent, and name its socket in SSH_AUTH_SOCK'
}

find_gh() {
  local token=${GH_TOKEN:-${GITHUB_TOKEN:-}}
  [[ -n $token || -z ${CSB_GH:-} ]] || token=$("$CSB_GH" auth token 2>/dev/null) || token=''
  [[ $token =~ ^[A-Za-z0-9_.-]+$ ]] || die '--forward gh: no token; gh auth login, or set GH_TOKEN'
  lent+=("GH_TOKEN=$token")
}

find_nix_daemon() {
  local folder=/nix/var/nix/daemon-socket
  [[ -S $folder/socket ]] || die "--forward nix-daemon: no socket in $folder; start nix-daemon"
  forwarded+=("nix-daemon=$folder")
}

find_dbus() {
  local address=${DBUS_SESSION_BUS_ADDRESS:-unix:path=${XDG_RUNTIME_DIR:-/nowhere}/bus}
  address=${address%%;*}
  [[ $address == unix:path=* ]] || die "--forward dbus: only a bus of the kind unix:path=, not $address"
  address=${address#unix:path=}
  address=${address%%,*}
  found dbus "$address" 'is there a session bus?'
  [[ -n $print ]] || make_bus_door "${address%/*}"
}

# A folder for the door's socket, beside the bus's own; it goes when what we become has ended (behind
# pasta nothing of us lives that long, so it is left to somebody out here).
make_bus_door() {
  bus_door=$("${CSB_MKDIR%/*}/mktemp" -d -- "$1/csb-bus.XXXXXXXX") ||
    die "--forward dbus: no folder can be made in $1"
  forwarded+=("bus-door=$bus_door")
  (
    trap '' HUP INT QUIT TERM
    close_others
    "${CSB_MKDIR%/*}/tail" -s 0.5 --pid=$$ -f /dev/null
    "${CSB_MKDIR%/*}/rm" -rf -- "$bus_door"
  ) </dev/null >/dev/null 2>&1 &
}

find_gpu() {
  local node any=''
  for node in /dev/dri/renderD*; do
    [[ -c $node && -r $node && -w $node ]] || continue
    forwarded+=("gpu=$node")
    any=1
  done
  [[ -n $any ]] || die '--forward gpu: no /dev/dri/renderD* that this user may open (group render?)'
}

find_audio() {
  local runtime=${XDG_RUNTIME_DIR:-/nowhere} server=${PULSE_SERVER:-} any=''
  server=${server#unix:}
  [[ $server == /* ]] || server=$runtime/pulse/native
  [[ ! -S $server ]] || { found pulse "$server" '' && any=1; }
  [[ ! -S $runtime/pipewire-0 ]] || { found pipewire "$runtime/pipewire-0" '' && any=1; }
  [[ -n $any ]] || die "--forward audio: neither $server nor $runtime/pipewire-0 is there"
}

find_wayland() {
  local socket=${WAYLAND_DISPLAY:-wayland-0}
  [[ $socket == /* ]] || socket=${XDG_RUNTIME_DIR:-/nowhere}/$socket
  found wayland "$socket" 'is this a Wayland session?'
}

# The cookie of this one screen, not the file that has the cookies of all.
find_display() {
  [[ ${DISPLAY:-} =~ ^(unix)?:([0-9]{1,5})(\.[0-9]+)?$ ]] ||
    die "--forward display: DISPLAY is '${DISPLAY:-}'; a screen of this host is :N"
  found display "/tmp/.X11-unix/X${BASH_REMATCH[2]}" 'an X server without a socket there cannot be used'
  [[ -n ${CSB_XAUTH:-} ]] || return 0 # some servers let a user in by uid alone
  local i fields=() number=''
  for ((i = 0; i < ${#BASH_REMATCH[2]}; i++)); do
    number+=3${BASH_REMATCH[2]:i:1} # as xauth prints it, in hexadecimal
  done
  while read -r -a fields; do # family, address, number, protocol, data: each after its length
    [[ ${fields[0]:-} =~ ^(0100|ffff)$ && ${#fields[@]} -ge 7 ]] || continue
    [[ ${fields[-5]} == "$number" || ${fields[-5]} == 0000 ]] || continue
    [[ ${fields[-3]} != 4d49542d4d414749432d434f4f4b49452d31 ]] || x_cookie=${fields[-1]}
  done < <("$CSB_XAUTH" -i nlist 2>/dev/null)
}

# forward_devices: while /dev can still be written.
forward_devices() {
  local each node number device
  for each in ${forwarded[@]+"${forwarded[@]}"}; do
    [[ $each == gpu=* ]] || continue
    node=${each#gpu=}
    [[ -c $node ]] || die "--forward gpu: $node is no device"
    args+=(--dev-bind "$node" "$node")
    # Mesa asks /sys which driver a node is for.
    read -r number < <("$CSB_STAT" -L -c '%Hr:%Lr' -- "$node") || continue
    [[ -e /sys/dev/char/$number/device ]] || continue
    device=$(cd -P -- "/sys/dev/char/$number/device" && pwd) || continue
    args+=(--ro-bind "$device" "$device"
      --symlink "$device/drm/${node##*/}" "/sys/dev/char/$number")
  done
}

# forward_args: while /run/csb can still be written.
forward_args() {
  local each kind value in
  for each in ${forwarded[@]+"${forwarded[@]}"}; do
    kind=${each%%=*} value=${each#*=} in=/run/csb/forward/${each%%=*}
    case $kind in
      gpu) ;;
      bus-door) bus_door=$value ;;
      dbus) bus=$value ;;
      nix-daemon) nix_args "$value" ;;
      ssh-agent) bind_socket "$in" && args+=(--setenv SSH_AUTH_SOCK "$in") ;;
      pulse) bind_socket "$in" && args+=(--setenv PULSE_SERVER "unix:$in") ;;
      pipewire)
        bind_socket /run/csb/forward/pipewire-0
        args+=(--setenv PIPEWIRE_RUNTIME_DIR /run/csb/forward)
        ;;
      wayland) bind_socket "$in" && args+=(--setenv WAYLAND_DISPLAY "$in") ;;
      display) display_args ;;
      *) die "--forward $kind is unknown; try --help" ;;
    esac
  done
  [[ -z $x_cookie ]] || cookie_args
  [[ -z $bus ]] || bus_args
}

# bind_socket PATH-INSIDE: bind $value there.
bind_socket() {
  [[ -S $value && ! -L $value ]] || die "--forward $kind: $value is no socket, or a link"
  args+=(--ro-bind "$value" "$1")
}

# The folder holds the socket and nothing else, so one that the daemon makes anew is seen. What it
# builds lies in the store, which any of its clients may read anyway.
nix_args() {
  args+=(--ro-bind "$1" /nix/var/nix/daemon-socket --setenv NIX_REMOTE daemon)
  [[ $CSB_LAYOUT == nix || ! -d /nix/store ]] || args+=(--ro-bind /nix/store /nix/store)
}

# By hand it is the display. Beside a display of the sandbox's own it is a second one, by another
# name: what is looked at and clicked from outside must be where programs appear.
display_args() {
  local number=0 user=''
  if [[ -n $x11 ]]; then
    number=1 user=CSB_USER_
    : >"$x11/X1" # to be mounted on, for inside nothing can be made there
  fi
  bind_socket "/tmp/.X11-unix/X$number"
  args+=(--setenv "${user}DISPLAY" ":$number")
  [[ -z $x_cookie ]] || args+=(--setenv "${user}XAUTHORITY" /run/csb/forward/Xauthority)
}

# An Xauthority file (Xau(3)) with this cookie for every host name and number, by descriptor.
cookie_args() {
  [[ $x_cookie =~ ^([0-9a-f]{2}){16}$ ]] || die '--forward display: its cookie is of no known kind'
  local fd i bytes=''
  for ((i = 0; i < 32; i += 2)); do
    bytes+="\\x${x_cookie:i:2}"
  done
  exec {fd}< <(printf '\xff\xff\0\0\0\0\0\x12MIT-MAGIC-COOKIE-1\0\x10%b' "$bytes")
  args+=(--perms 0400 --file "$fd" /run/csb/forward/Xauthority)
}

# The bus's door: a proxy that filters, in a sandbox of its own that has the bus's socket and no
# network, no project, no home. A child of what becomes the payload's bwrap, and dies with it.
bus_args() {
  [[ -n ${CSB_DBUS_PROXY:-} ]] || die '--forward dbus: xdg-dbus-proxy is not installed'
  [[ -n ${CSB_PYTHON:-} ]] || die '--forward dbus: no python3 is installed'
  [[ -S $bus && (-d $bus_door || -n $print) ]] || die "--forward dbus: no socket $bus"
  local ready word=''
  [[ -n $print ]] || {
    exec {ready}< <(run_bus_door)
    IFS= read -r -t 10 -u "$ready" word || :
    exec {ready}<&-
    [[ $word == ready ]] || die '--forward dbus: its proxy did not start'
  }
  local value=$bus_door/bus kind=dbus
  [[ -n $print ]] || bind_socket /run/csb/forward/bus
  args+=(--setenv DBUS_SESSION_BUS_ADDRESS unix:path=/run/csb/forward/bus)
}

run_bus_door() {
  local box=(
    --unshare-user --uid 1000 --gid 1000 --disable-userns --cap-drop ALL
    --unshare-pid --as-pid-1 --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try
    --hostname bus --new-session --die-with-parent --seccomp 7
  )
  root_args box
  box+=(
    --dev /dev --size 1048576 --tmpfs /tmp --dir /run
    --ro-bind "$CSB_SHARE" /opt/csb --ro-bind "$bus" /run/bus --bind "$bus_door" /run/door
    --remount-ro / --chdir / --setenv PATH "$CSB_PATH"
  )
  # Who the bus will take us for; in a user namespace we have another number.
  local inside=0 outside=0 rest
  read -r inside outside rest </proc/self/uid_map || :
  trap '' HUP INT QUIT
  exec 7<"$CSB_BPF" 0</dev/null
  close_others 7
  exec_bwrap box "$CSB_PYTHON" -I -S /opt/csb/bus.py $((EUID - inside + outside)) \
    "$CSB_DBUS_PROXY" "${BUS_RULES[@]}"
}
