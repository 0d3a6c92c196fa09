# xkbcomp, as a starting X server calls it: a third of its start is compiling always the same keymap.
# That one is answered from what was compiled when the launchers were installed; any other (another
# version's default, a client's setxkbmap) by the real program.
# shellcheck disable=SC2148,SC2154  # the preamble has the shebang, and sets the variables
IFS= read -r -d '' asked || :
IFS= read -r -d '' known </run/xkb/keymap.xkb || :
if [[ $asked == "$known" && ${!#} == *.xkm ]]; then
  exec cat /run/xkb/keymap.xkm >"${!#}"
fi
exec /run/xkbcomp "$@" <<<"$asked"
