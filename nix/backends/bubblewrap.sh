# claude-sandbox: one payload in one bubblewrap sandbox.
#
# This file decides what a payload can see. Read it from the bottom up: main says what happens in
# which order. It runs as the user whose files the payload may change, never as root.
# shellcheck disable=SC2148,SC2154  # the preamble has the shebang, and sets the CSB_ variables
# shellcheck disable=SC2034  # network.sh, before it, reads what parse sets

# Files and folders of a project that make the *host* run code when somebody merely opens, enters or
# commits to it. Those that exist are read-only inside. (The daemon reads this list too: it watches
# those that are absent, for nothing can be mounted there without leaving a stub on the host.)
PROTECTED=(
  .git/hooks
  .git/config
  .git/config.worktree
  .git/commondir
  .git/info/attributes
  .git/modules
  .git/worktrees
  .claude/settings.json
  .claude/settings.local.json
  .claude/hooks
  .claude/commands
  .claude/agents
  .claude/skills
  .claude/plugins
  .mcp.json
  .cursor/mcp.json
  .cursor/hooks.json
  .codex/config.toml
  .codex/hooks.json
  .codex/rules
  .codex/skills
  .gemini/settings.json
  .envrc
  .vscode
  .idea
  .zed
  .fleet
  .husky
  .githooks
  .devcontainer
  .devcontainer.json
  .exrc
  .vimrc
  .nvimrc
  .nvim.lua
  .dir-locals.el
  .cargo/config
  .cargo/config.toml
)

# As root, become whoever ran sudo, else the project's owner. A payload never has host uid 0.
leave_root() {
  [[ $EUID == 0 && -z $inside ]] || return 0 # inside pasta's namespace 0 is who started it
  local owner=${SUDO_UID:-0} group=${SUDO_GID:-0}
  [[ $owner =~ ^[0-9]+$ && $group =~ ^[0-9]+$ ]] || die 'SUDO_UID or SUDO_GID is not a number'
  if ((owner == 0)); then
    read -r owner group < <("$CSB_STAT" -L -c '%u %g' -- "${source:-$project}") || die "no folder $project"
  fi
  ((owner != 0 && group != 0)) ||
    die "refusing to run a payload as root; run: sudo -u USER ${0##*/} ..."
  local last=--no-new-privs
  # pasta gives up capabilities, and what it starts gets them again as root of its namespace, unless
  # it may gain none. (bwrap sees to it for the payload.)
  [[ $network != full ]] || last=''
  exec "$CSB_SETPRIV" --reuid="$owner" --regid="$group" --clear-groups --inh-caps=-all \
    ${last:+"$last"} -- "$0" "$@"
}

# Enter the project, so that it is this folder, and no other put in its place, that is looked at
# from here on. `real` is its path on the host, `project` the path it gets inside.
enter_project() {
  if [[ -n $inside && -z $fifo ]]; then # it is this folder already
    cd -P -- . || die 'the project folder is gone'
    [[ -n $source ]] || project=$PWD
  elif [[ -z $source ]]; then
    cd -P -- "$project" 2>/dev/null || die "cannot enter the project folder $project"
    project=$PWD
  else
    cd -P -- "$source" 2>/dev/null || die "cannot enter the project folder $source"
  fi
  real=$PWD
  [[ -z $identity || $("$CSB_STAT" -c %d:%i .) == "$identity" ]] ||
    die "$project is not the folder any more that it was a moment ago"
  [[ $project != *//* && $project/ != */./* && $project/ != */../* && $project != */ ]] ||
    die "the path $project is not in normal form"
  case $project in
    /usr/src/* | /usr/local/src/* | /dev/shm/*) ;;
    / | /home | /home/agent | /tmp | /run | /opt | /var | /mnt | /media | /srv | /root | /boot | \
      /usr | /usr/* | /etc | /etc/* | /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | \
      /bin | /bin/* | /sbin | /sbin/* | /lib | /lib/* | /lib32* | /lib64* | /libx32* | \
      /nix | /nix/store | /nix/store/* | /run/csb | /run/csb/* | /opt/csb | /opt/csb/* | \
      /tmp/.X11-unix | /tmp/.X11-unix/* | /tmp/csb-commands | /tmp/csb-commands/*)
      die "$project cannot be a project: the sandbox needs that path itself"
      ;;
  esac
  [[ -z ${HOME:-} || $HOME/ != "$real"/* ]] || die "$real holds your home; name a folder below it"
}

# Where nobody says which: a plain home for each project, kept from one time to the next.
default_home() {
  [[ -z $home ]] || return 0
  [[ -n ${HOME:-} ]] || die 'HOME is not set; name a home by --home'
  local name=${project//\//%}
  ((${#name} < 200)) || name=${name: -200}
  home=${XDG_STATE_HOME:-$HOME/.local/state}/csb-mcp/by-hand/$name
  "$CSB_MKDIR" -p -m 0700 -- "$home" || die "no home can be made at $home"
}

# Append the namespaces, limits and the read-only system.
system_args() {
  args+=(
    --unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try
    --disable-userns --assert-userns-disabled --uid 1000 --gid 1000 --hostname csb
    --cap-drop ALL --die-with-parent --as-pid-1
  )
  network_args
  root_args args
  args+=(--proc /proc --ro-bind /proc/sys /proc/sys)
  local name
  for name in key-users keys latency_stats sched_debug; do # the host's, in no namespace
    [[ ! -e /proc/$name ]] || args+=(--ro-bind /dev/null "/proc/$name")
  done
  # bwrap binds the terminal it was started on at /dev/console; the payload has one of its own.
  args+=(
    --dev /dev --dev-bind /dev/null /dev/console
    --perms 1777 --size "$shm_size" --tmpfs /dev/shm
  )
  forward_devices
  args+=(
    --remount-ro /dev --perms 1777 --size "$tmp_size" --tmpfs /tmp --perms 0700 --dir /tmp/csb-commands
    --size 67108864 --tmpfs /run --perms 0700 --dir /run/user
    --symlink ../tmp /var/tmp
  )
}

# A small file of our own in /etc: text by descriptor.
etc_file() {
  local fd
  exec {fd}<<<"$2"
  args+=(--perms 0444 --file "$fd" "/etc/$1")
}

identity_args() {
  etc_file passwd "agent:x:1000:1000:agent:/home/agent:$CSB_BASH
root:x:0:0:root:/root:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false"
  etc_file group $'agent:x:1000:\nroot:x:0:\nnogroup:x:65534:'
  etc_file hosts $'127.0.0.1 localhost csb\n::1 localhost csb'
  etc_file nsswitch.conf $'passwd: files\ngroup: files\nhosts: files dns'
  etc_file gitconfig "$git_identity"
  find_resolver
  etc_file resolv.conf "$resolver"
  args+=(--symlink ../usr/lib/os-release /etc/os-release)
  local terminal=${TERM:-}
  [[ $terminal =~ ^[A-Za-z0-9.+-]{1,64}$ && $terminal != dumb ]] || terminal=xterm-256color
  args+=(
    --setenv HOME /home/agent --setenv USER agent --setenv LOGNAME agent --setenv SHELL "$CSB_BASH"
    --setenv PATH "/opt/csb/bin:$CSB_PATH" --setenv LANG C.UTF-8 --setenv TERM "$terminal"
    --setenv XDG_RUNTIME_DIR /run/user --setenv BROWSER chromium --setenv CSB_SANDBOX 1
  )
}

# What comes from us: programs, display, the daemon's requests. On mounts that can be neither
# written nor renamed, so that a payload cannot put others in their place.
own_args() {
  local program
  args+=(
    --ro-bind "$CSB_SHARE" /opt/csb
    --size 1048576 --tmpfs /run/csb
  )
  if [[ -n $x11 ]]; then
    [[ -z $CSB_CHROMIUM ]] || chromium_args
    args+=(--ro-bind "$x11" /tmp/.X11-unix --ro-bind "$xauthority" /run/csb/Xauthority
      --setenv DISPLAY :0 --setenv XAUTHORITY /run/csb/Xauthority)
    [[ -z $geometry ]] || args+=(--setenv CSB_GEOMETRY "$geometry")
  fi
  [[ -z $exec_dir ]] || args+=(--ro-bind "$exec_dir" /run/csb/exec)
  egress_args
  authority_args
  forward_args
  [[ -z $environment && ${#lent[@]} -eq 0 ]] || environment_args
  args+=(--remount-ro /run/csb)
  for program in ${programs[@]+"${programs[@]}"}; do
    [[ $program == /* && $program != / ]] || die "--program $program is not an absolute path"
    args+=(--ro-bind "$program" "$program")
  done
}

chromium_args() {
  local policies=/etc/chromium
  [[ $CSB_CHROMIUM != *google* ]] || policies=/etc/opt/chrome
  args+=(--ro-bind "$CSB_SHARE/chromium-policy.json" "$policies/policies/managed/csb.json")
  authority_policy "$policies/policies/managed"
  # Debian's start script reads all files of this folder, and fails if there is none.
  [[ ! -d /etc/chromium.d ]] || args+=(--ro-bind /etc/chromium.d /etc/chromium.d)
}

environment_args() {
  local pairs=() fd
  [[ -z $environment ]] || check_environment
  if ((${#lent[@]})); then
    exec {fd}< <(printf '%s\0' ${pairs[@]+"${pairs[@]}"} "${lent[@]}")
  else
    exec {fd}<"$environment"
  fi
  args+=(--perms 0400 --file "$fd" /run/csb/environment)
}

# The pairs are for the payload alone. The helper, PID 1, never has them in its environment: there,
# LD_PRELOAD or BASH_ENV would run before it has looked around.
check_environment() {
  local pair
  while IFS= read -r -d '' pair; do
    [[ $pair =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die "${pair%%=*} cannot be an environment variable"
    case ${pair%%=*} in
      UID | EUID | PPID | BASHOPTS | SHELLOPTS | BASH_VERSINFO | IFS)
        die "${pair%%=*} cannot be set in the environment" ;;
    esac
    pairs+=("$pair")
  done <"$environment"
}

project_args() {
  # If the host's user is called agent, the project may lie in what is the home inside. Its mount
  # point is made there: not through a link that an earlier payload left.
  if [[ $project == /home/agent/* ]]; then
    local part=$project
    while part=${part%/*} && [[ $part != /home/agent ]]; do
      [[ ! -L $home${part#/home/agent} ]] || die "${part} is a link in the sandbox's home"
    done
    [[ ! -L $home${project#/home/agent} ]] || die "$project is a link in the sandbox's home"
  fi
  args+=(--bind "$home" /home/agent --bind "$real" "$project")
  mounts=(rw:)
  git_names
  local path
  for path in "${PROTECTED[@]}"; do
    protect "$path"
  done
  args+=(--chdir "$project")
}

# A bare repository has its hooks at the top; a worktree's .git is a file that names the repository;
# .git/config may name more files that the host's git will obey.
git_names() {
  [[ ! -f HEAD || ! -d objects ]] || PROTECTED+=(hooks config commondir)
  [[ ! -f .git ]] || PROTECTED+=(.git)
  [[ -f .git/config && ! -L .git && ! -L .git/config ]] || return 0
  local key value
  while IFS='=' read -r key value; do
    key=${key//[[:space:]]/}
    value=${value#"${value%%[![:space:]]*}"}
    value=${value%"${value##*[![:space:]]}"}
    value=${value#\"}
    value=${value%\"}
    case ${key,,} in
      hookspath | fsmonitor | attributesfile) inside_project "$value" ;;
      path) inside_project ".git/$value" ;; # [include], relative to the file it stands in
    esac
  done <.git/config
}

# inside_project PATH: protect PATH too, if it leads to a place in the project.
inside_project() {
  local path=$1 part parts=() normal=()
  path=${path#"$project/"}
  path=${path#.git/"$project/"}
  [[ $path != /* && $path != .git//* && $path != *'~'* ]] || return 0
  IFS=/ read -r -a parts <<<"$path"
  for part in "${parts[@]}"; do
    case $part in
      '' | .) ;;
      ..)
        ((${#normal[@]})) || return 0
        unset 'normal[-1]'
        ;;
      *) normal+=("$part") ;;
    esac
  done
  ((${#normal[@]})) || return 0
  printf -v path '/%s' "${normal[@]}"
  PROTECTED+=("${path#/}")
}

# protect PATH: if it exists, read-only; and each folder above it bound on itself, for a mount point
# cannot be renamed, nor what it lies in. A link is never followed: it could lead anywhere. (Between
# this look and bwrap's another sandbox on the same project may put one there: the helper compares
# what was mounted before it starts the payload.)
protect() {
  local path=$1 above='' rest=$1/
  while [[ -n $rest ]]; do
    above+=${above:+/}${rest%%/*}
    rest=${rest#*/}
    [[ ! -L $above ]] || die \
      "$project/$above is a symbolic link where the host trusts what it finds; make it a copy"
    [[ -e $above ]] || return 0
  done
  above='' rest=$path
  while [[ $rest == */* ]]; do
    above+=${above:+/}${rest%%/*}
    rest=${rest#*/}
    bind_once rw "$above"
  done
  bind_once ro "$path"
}

bind_once() {
  local mount
  for mount in "${mounts[@]}"; do
    [[ $mount != "ro:$2" && $mount != "rw:$2" ]] || return 0
    # What lies in a read-only folder is read-only, and fixed there.
    [[ $mount != ro:* || $2 != "${mount#ro:}"/* ]] || return 0
  done
  mounts+=("$1:$2")
  if [[ $1 == ro ]]; then
    args+=(--ro-bind "$real/$2" "$project/$2")
  else
    args+=(--bind "$real/$2" "$project/$2")
  fi
}

# What the helper shall find in its /proc/self/mountinfo for the project: `device` and `root`, as
# the kernel writes them (proc(5): path within the filesystem, some characters as octal).
find_device() {
  local line lines=() fields=() point longest='' path
  escape "$real" path
  device='' root=''
  mapfile -t lines </proc/self/mountinfo # a loop of reads makes the kernel start anew each time
  set -f
  for line in "${lines[@]}"; do
    # shellcheck disable=SC2206  # spaces in names are octal here, and there is no globbing
    fields=($line) # ID, parent, device, root, mount point, ...
    point=${fields[4]}
    [[ $path/ == "${point%/}"/* && ${#point} -ge ${#longest} ]] || continue
    longest=$point device=${fields[2]} root=${fields[3]%/}${path#"${point%/}"}
  done
  set +f
  root=${root:-/}
}

# escape TEXT NAME: put TEXT, as the kernel writes it in mountinfo, into the variable NAME.
escape() {
  local text=${1//\\/\\134}
  text=${text// /\\040}
  text=${text//$'\t'/\\011}
  printf -v "$2" '%s' "${text//$'\n'/\\012}"
}

# Put into `later` what is to be obeyed as well, when we are told to go on. The daemon has us started
# before it knows of what: our start takes a third of ours, and pasta's longer than all else.
wait_for_words() {
  local _
  read -r _ <"$fifo" || die 'nobody says what to start'
  mapfile -d '' -t later <"$file"
}

main() {
  local later=()
  defaults
  parse "$@"
  leave_root "$@"
  [[ -z $messages ]] || exec 2>>"$messages"
  if [[ -n $fifo ]]; then
    go_through_pasta "$@"
    take_network
    wait_for_words
    set -- "${later[@]}"
    parse "$@"
  fi
  local fd
  for fd in 0 1 2; do
    [[ ! -d /proc/self/fd/$fd ]] || die 'a folder is open as a standard stream; it would lead outside'
  done
  if ((${#command[@]} == 0)); then
    if [[ -n $shell ]]; then command=("$CSB_BASH"); else command=(claude); fi
  fi
  enter_project
  default_home
  [[ $network != full || -n $inside || -n $print ]] || {
    forward_find
    keep_for_inside
    go_through_pasta ${forward_words[@]+"${forward_words[@]}"} "$@"
  }
  [[ -n $fifo ]] || take_network
  exec 9<"$CSB_BPF"
  close_others 9
  args=()
  forward_find
  system_args
  identity_args
  own_args
  project_args
  args+=(--remount-ro /)
  if [[ -n $print ]]; then
    printf '%q ' "$CSB_BWRAP" "${args[@]}" -- "${command[@]}"
    printf '\n'
    exit
  fi
  find_device
  local shown
  escape "$project" shown
  args+=(--seccomp 9)
  [[ -z $control ]] || exec 3<>"$control" 4<>"$status"
  exec_bwrap args "$CSB_BASH" -p /opt/csb/helper.sh begin "${control:+channel}" "$pids" \
    "$shown" "$device" "$root" "${#mounts[@]}" "${mounts[@]}" "${command[@]}"
}

main "$@"
