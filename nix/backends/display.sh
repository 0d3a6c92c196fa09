# shellcheck shell=bash disable=SC2154  # joined behind a preamble and common.sh, which set CSB_*
#
# display: become one X server (Xvfb) in a small sandbox of its own. Beside it, in another one, a
# window manager (lwm) if the host has it; it is no condition of anything, and dies with the server.
#
#   display --x11-dir D --framebuffer-dir D --xauthority F --ready-fifo F --geometry WxH [--gl]
#   display ... --print-args    show what would run, one argument a line: the server, then, after an
#                               empty line, the window manager
#   display --contract          print the version of this command line
#
# The server has its own network namespace and a private /tmp/.X11-unix (the folder x11-dir), so it
# is always :0, no abstract socket of it is within anybody's reach, and none of another is in its
# own. Clients come from the payload and are hostile: the server gets what it needs to draw, no more.
# The window manager reads what clients say of their windows, and they may take it over so. Then they
# have what they had, a client's connection, and less: no project, no network, no process more. It
# shares nothing with the server but the socket, so the server is out of its reach too.

gl='' print='' x11='' framebuffer='' xauthority='' ready='' geometry='' server_pid='' given=("$@")
while (($#)); do
  case $1 in
    --contract)
      printf '%s\n' "$CSB_CONTRACT"
      exit
      ;;
    --gl) gl=1 ;;
    --print-args) print=1 ;;
    --x11-dir | --framebuffer-dir | --xauthority | --ready-fifo | --geometry | --manager-of)
      (($# > 1)) || die "$1 needs a value" 2
      case $1 in
        --x11-dir) x11=$2 ;;
        --framebuffer-dir) framebuffer=$2 ;;
        --xauthority) xauthority=$2 ;;
        --ready-fifo) ready=$2 ;;
        --geometry) geometry=$2 ;;
        --manager-of) server_pid=$2 ;; # our own: see start_manager
      esac
      shift
      ;;
    *) die "unknown option $1" 2 ;;
  esac
  shift
done
[[ -n $CSB_XVFB ]] || die 'Xvfb is not installed'
[[ -d $x11 && -d $framebuffer ]] || die '--x11-dir and --framebuffer-dir must be folders' 2
[[ -f $xauthority ]] || die '--xauthority must be a file' 2
[[ -p $ready ]] || die '--ready-fifo must be a FIFO' 2
[[ $geometry =~ ^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$ ]] || die '--geometry must be WIDTHxHEIGHT' 2

# Xvfb as PID 1: it reaps the one child it has (xkbcomp) itself. It needs no /sys, and /proc only for
# llvmpipe, which looks for processors there.
box=(
  --unshare-user --uid 1000 --gid 1000 --disable-userns --cap-drop ALL
  --unshare-pid --as-pid-1 --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try
  --hostname display --new-session --die-with-parent --seccomp 7
)
root_args box
args=("${box[@]}")
if [[ -f ${CSB_XKB:-}/keymap.xkm ]]; then
  args+=(--ro-bind "$CSB_XKB" /run/xkb --ro-bind "$CSB_XKBCOMP" /run/xkbcomp
    --ro-bind "$CSB_XKB/xkbcomp" "$CSB_XKBCOMP")
fi
[[ -z $gl ]] || args+=(--proc /proc --setenv MESA_SHADER_CACHE_DISABLE 1)
args+=(
  --dev /dev --size 8388608 --tmpfs /tmp --dir /run
  --bind "$x11" /tmp/.X11-unix
  --bind "$framebuffer" /run/framebuffer
  --ro-bind "$xauthority" /run/xauthority
  --remount-ro / --chdir / --setenv PATH "$CSB_PATH"
)

# -noreset: the server would forget everything when its last client leaves. MIT-SHM has to be off
# because clients live in another IPC namespace: Chromium paints a black window as long as it is
# offered. GLX doubles the start time and takes three quarters of the memory.
server=("$CSB_XVFB" :0 -screen 0 "${geometry}x24" -fbdir /run/framebuffer -auth /run/xauthority
  -nolisten tcp -nolisten local -noreset -displayfd 6 -extension MIT-SHM)

# A client may ask for any number of pixmaps: at this limit the server answers BadAlloc instead of
# taking the memory of the host. It is address space, so programs and fonts count too.
width=${geometry%x*} height=${geometry#*x}
limit=$((512 * 1024 + 3 * width * height * 4 / 1024)) # KiB; three screens: a window and its double
if [[ -n $gl ]]; then
  limit=$((limit + 2048 * 1024)) # llvmpipe maps LLVM and gives each thread a stack and an arena
else
  server+=(-extension GLX)
fi

# One line of sh as PID 1, which starts it again: clients can disconnect it, and find its mistakes. It
# may have two processes, the line and lwm, so no click starts a program in there: on the second
# button lwm wants to run xterm, or what a client wrote into the server's RESOURCE_MANAGER.
# dash names that limit -p, bash -u. Should bwrap be killed while it makes this box, nobody is left to
# end it: so it waits for the server no longer than that may take, and stays as long as there is its
# socket, which goes with the sandbox.
# shellcheck disable=SC2016  # that shell is to expand it
manage='n=0;
while [ ! -S /tmp/.X11-unix/X0 ] && [ "$n" -lt 50 ]; do n=$((n + 1)); sleep 0.1; done;
(ulimit -u 2) 2>/dev/null && ulimit -u 2 || ulimit -p 2 || exit; n=0;
while [ -S /tmp/.X11-unix/X0 ] && [ "$n" -lt 20 ]; do n=$((n + 1)); "$0" >/dev/null 2>&1; sleep 0.5; done'
manager=(/bin/sh -c "${manage//$'\n'/ }" "${CSB_LWM:-}")
manager_args=(
  "${box[@]}" --dev /dev --size 65536 --tmpfs /tmp --dir /run
  --ro-bind "$x11" /tmp/.X11-unix --ro-bind "$xauthority" /run/xauthority
  --remount-ro / --chdir / --setenv PATH "$CSB_PATH"
  --setenv DISPLAY :0 --setenv XAUTHORITY /run/xauthority
)

# start_manager: a moment later, for whoever waits for the display shall have the processors. It starts
# anew with the promise to be killed when the server goes (PR_SET_PDEATHSIG). Had the server gone before
# that promise was made, nothing would end us with it: hence the look in run_manager, after it.
start_manager() {
  read -rt 0.2 <> <(:) || : # a pipe that nothing comes out of
  exec "$CSB_SETPRIV" --pdeathsig KILL "$0" "${given[@]}" --manager-of $$
}

# run_manager: become it.
run_manager() {
  kill -0 "$server_pid" || exit
  exec 7<"$CSB_BPF"
  close_others 7
  ulimit -v 131072 2>/dev/null || :
  exec_bwrap manager_args "${manager[@]}"
}

if [[ -n $print ]]; then
  printf '%s\n' "$CSB_BWRAP" "${args[@]}" -- "${server[@]}"
  [[ -z ${CSB_LWM:-} ]] || printf '%s\n' '' "$CSB_BWRAP" "${manager_args[@]}" -- "${manager[@]}"
  exit
fi
ulimit -c 0
[[ -z $server_pid ]] || run_manager
[[ -z ${CSB_LWM:-} ]] || start_manager &
ulimit -v "$limit" 2>/dev/null || : # refused only if a lower limit is in force already
# O_RDWR: opening does not wait for a reader, and Xvfb never gets SIGPIPE from one that left between
# the number and its newline, which are two writes.
exec 6<>"$ready" 7<"$CSB_BPF"
close_others 6 7
exec_bwrap args "${server[@]}"
