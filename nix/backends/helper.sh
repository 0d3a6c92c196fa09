# The helper: PID 1 inside a sandbox. It looks around, starts the payload, and runs commands for the
# daemon. As PID 1 it outlives `kill -9 -1`; it has the payload's own filter, uid and namespaces.
# shellcheck disable=SC2148,SC2154  # the preamble has the shebang, and sets the CSB_ variables
#
# Requests come as lines on descriptor 3, answers go as lines to 4. Both are FIFOs; a line is shorter
# than PIPE_BUF, so lines of several writers do not mix.
#
#   run ID      /run/csb/exec/ID holds: command, cwd, stdin (files), stdout, stderr (FIFOs)
#               started ID PID, then exit ID STATUS; or failed ID fork|folder|request
#   start ID    the same in the background, output to /tmp/csb-commands/ID.out and .err
#               started ID PID; or failed
#   kill PID    SIGKILL to the process group
#   door ID     the egress proxy was started anew: give it a listener
#               exit ID STATUS; or failed ID fork
#   terminate   SIGTERM, SIGHUP, SIGCONT to all
#   ping N      pong N
#   ended N     from the payload's own parent below: the payload ended with status N
set +e +u +o pipefail
EXEC=/run/csb/exec
SIGNALS=(HUP INT QUIT TERM USR1 USR2 ALRM)

refuse() {
  printf 'csb: refusing to start: %s\n' "$1" >&2
  exit 125
}

# The launcher checked paths, bwrap resolved them again a moment later: see that what was mounted is
# what was meant. $1 project, $2 device, $3 its root on that device; then MODE:PATH for each mount
# that must lie in the project, exactly once.
check_mounts() {
  local project=$1 device=$2 root=${3%/} line mount path here
  local -A found=()
  local lines=() fields=()
  # Not by read in a loop: that goes back after each line, and the kernel starts anew each time.
  mapfile -t lines </proc/self/mountinfo
  set -f
  for line in "${lines[@]}"; do
    # shellcheck disable=SC2206  # spaces in names are octal here, and there is no globbing
    fields=($line) # ID, parent, device, root, mount point, options, ...
    [[ ${fields[4]}/ != "$project"/* ]] ||
      found[${fields[4]}]+="${fields[5]%%,*} ${fields[2]} ${fields[3]};"
  done
  set +f
  for mount in "${@:4}"; do
    path=${mount#*:}
    path=${path//\\/\\134}
    path=${path// /\\040}
    path=${path//$'\t'/\\011}
    path=${path:+/$path}
    here=$root$path
    [[ ${found[$project$path]-} == "${mount%%:*} $device ${here:-/};" ]] ||
      refuse "$project$path changed while the sandbox was made, or is a mount of its own"
  done
}

check_self() {
  local line lines=()
  mapfile -t lines </proc/self/status
  for line in "${lines[@]}"; do
    case $line in
      Seccomp:$'\t'2 | NoNewPrivs:$'\t'1 | CapEff:$'\t'0000000000000000 | CapBnd:$'\t'0000000000000000) ;;
      Seccomp:* | NoNewPrivs:* | CapEff:* | CapBnd:*) refuse "$line" ;;
    esac
  done
}

# Make the listener that leads out, and hand it to the egress proxy, which is outside.
open_way_out() {
  "$CSB_PYTHON" -I -S /opt/csb/door.py /run/csb/egress/door.sock </dev/null 3>&- 4>&-
}

# The memory hog dies first, not the helper. Then what was asked for as the environment.
become_payload() {
  umask 022
  printf '500\n' >/proc/self/oom_score_adj
  local pair
  [[ ! -e /run/csb/environment ]] || while IFS= read -r -d '' pair; do
    export "${pair?}"
  done </run/csb/environment
}

# The payload gets a terminal of its own (job control, ^C, window size), unless it was given none.
# A bash that was started by & ignores ^C, and so would all below it: hence the traps.
start_payload() {
  (
    trap : "${SIGNALS[@]}"
    become_payload
    if [[ -t 0 && -t 1 ]]; then
      printf -v line '%q ' "$@"
      SHELL=$CSB_BASH "$CSB_SCRIPT" -qefc "exec $line" /dev/null 3>&- 4>&-
    else
      "$@" 3>&- 4>&-
    fi
    status=$?
    [[ -z $channel ]] || printf 'ended %s\n' "$status" >&3
    exit "$status"
  ) <&0 &
  payload=$!
}

# $1 run or start, $2 ID. Always in the background: a shell that keeps one command, and tells.
keep_command() {
  local id=$2 command='' cwd=. status
  exec 3>&-
  # Where fork fails bash sleeps and tries again, up to 15 seconds, then it exits. SIGCHLD cuts the
  # sleep short (the daemon sends it to whoever takes long), but only if the fork is one by &: for
  # another bash blocks it.
  # shellcheck disable=SC2064  # expanded now: a local is gone by then
  trap "printf 'failed %s fork\n' '$id' >&4" EXIT
  IFS= read -r -d '' command <"$EXEC/$id/command" || [[ -n $command ]] || failed request
  [[ ! -e $EXEC/$id/cwd ]] || IFS= read -r -d '' cwd <"$EXEC/$id/cwd"
  cd -- "$cwd" || failed folder
  become_payload
  if [[ $1 == start ]]; then
    exec </dev/null >"/tmp/csb-commands/$id.out" 2>"/tmp/csb-commands/$id.err" || failed request
    begin_command
  fi
  exec <"$EXEC/$id/stdin" >"$EXEC/$id/stdout" 2>"$EXEC/$id/stderr" || failed request
  begin_command <&0 &
  wait "$!"
  status=$?
  trap - EXIT
  printf 'exit %s %s\n' "$id" "$status" >&4
}

failed() {
  trap - EXIT
  printf 'failed %s %s\n' "$id" "$1" >&4
  exit 1
}

# setsid(1) does not fork, for this is no group leader: the pid that was told stays the right one.
# What bash starts by & ignores ^C, and so would the command: hence the second trap.
begin_command() {
  trap - EXIT "${SIGNALS[@]}"
  printf 'started %s %s\n' "$id" "$BASHPID" >&4
  exec "$CSB_SETSID" "$CSB_BASH" -c "$command" 4>&-
}

obey() {
  [[ $1 =~ ^(run|start|door|kill|ping|ended|terminate)(\ ([a-z0-9]{1,32}))?$ ]] || return 0
  local word=${BASH_REMATCH[1]} id=${BASH_REMATCH[3]}
  case $word in
    ping) printf 'pong %s\n' "$id" >&4 ;;
    run | start)
      current=$id
      keep_command "$word" "$id" &
      current=''
      ;;
    door)
      current=$id
      {
        open_way_out
        printf 'exit %s %s\n' "$id" "$?" >&4
      } &
      current=''
      ;;
    kill)
      [[ $id =~ ^[1-9][0-9]{0,9}$ && $id != 1 ]] || return 0
      kill -KILL -- "-$id" || kill -KILL "$id"
      ;;
    terminate)
      kill -TERM -- -1
      kill -HUP -- -1
      kill -CONT -- -1
      ;;
    ended) finish "$id" ;;
  esac
}

finish() {
  trap - EXIT
  [[ $1 =~ ^[0-9]{1,3}$ ]] || exit 255
  exit "$1"
}

# A script's bash exits when it cannot fork: become a new one, which needs no fork.
serve() {
  trap 'exec "$CSB_BASH" -p "$0" resume "$payload" "$current"' EXIT
  trap '' "${SIGNALS[@]}" # `pkill bash` inside is not meant for us
  local line begun='' patience=2
  while :; do
    if IFS= read -r -t "$patience" -n 256 -u 3 line; then
      obey "$begun$line"
      begun=''
    elif (($? > 128)); then
      # The time may be up after the first bytes of a line: they have been read, so they are kept.
      begun+=$line
      # The payload's parent is gone. It may have told just now (all was frozen for longer than the
      # time, say); if nothing comes, it was killed and could not (kill -9 -1).
      if ! kill -0 "$payload"; then
        [[ $patience == 2 ]] || finish 137
        patience=0.1
      fi
    else
      finish 255
    fi
  done
}

current=''
case ${1:-} in
  begin)
    channel=$2
    ulimit -c 0
    # At most so many files for a process; one that asks for no more keeps what it was given.
    ulimit -Hn 65536 2>/dev/null || ulimit -n 65536 2>/dev/null || :
    ulimit -u "$3" || : # fails only if the limit that was inherited is lower
    # The payload may connect as soon as there is a listener; what comes early waits in its queue.
    door='' listens=1
    if [[ -d /run/csb/egress ]]; then
      exec {listens}< <(open_way_out)
      door=$!
    fi
    check_self
    check_mounts "${@:4:3}" "${@:8:$7}"
    [[ -z $door ]] || read -r -u "$listens" _ || refuse 'the way out could not be opened'
    [[ -z $door ]] || exec {listens}<&-
    shift $((7 + $7))
    if [[ -z $channel ]]; then
      start_payload "$@"
      exec </dev/null >/dev/null 2>&1
      wait "$payload"
      exit
    fi
    # Descriptor 2 may be the daemon's file for complaints; from here on it is the terminal.
    exec 2>&1
    start_payload "$@"
    exec </dev/null >/dev/null 2>&1
    [[ -z $door ]] || wait "$door" || finish 125
    printf 'ready %s\n' "$CSB_CONTRACT" >&4
    ;;
  resume)
    payload=$2
    exec </dev/null >/dev/null 2>&1
    [[ -z ${3:-} ]] || printf 'failed %s fork\n' "$3" >&4
    ;;
  *) refuse 'this is started by the launcher' ;;
esac
serve
