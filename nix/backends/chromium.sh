# Chromium, so that `chromium URL` just works in a sandbox. Its own sandbox needs what the system
# call filter and --disable-userns refuse; the one it runs in takes that place.
# shellcheck disable=SC2148,SC2154  # the preamble has the shebang, and sets the variables
#
# --disable-dev-shm-usage is not needed: /dev/shm is a tmpfs of its own here.
[[ -x $CSB_CHROMIUM ]] || {
  printf 'chromium: there is none on the host (set CSB_MCP_CHROMIUM for the daemon)\n' >&2
  exit 127
}
flags=(--no-sandbox --disable-gpu --no-first-run --no-default-browser-check --password-store=basic
  --disable-background-networking --disable-component-update --disable-sync
  '--window-position=0,0') # where no window manager places it; a later flag of the caller's wins
# As large as the display lets it be with the window manager's bar and borders all to be seen.
[[ ! ${CSB_GEOMETRY:-} =~ ^([1-9][0-9]+)x([1-9][0-9]+)$ ]] || flags+=(
  "--window-size=$((BASH_REMATCH[1] - 12)),$((BASH_REMATCH[2] - 40))")
[[ -z ${CSB_PROXY:-} ]] || flags+=("--proxy-server=$CSB_PROXY")
profile="--user-data-dir=/tmp/chromium-$$" # two processes on one profile break each other
for argument in "$@"; do
  [[ $argument != --user-data-dir* ]] || profile=
done
exec "$CSB_CHROMIUM" "${flags[@]}" ${profile:+"$profile"} "$@"
