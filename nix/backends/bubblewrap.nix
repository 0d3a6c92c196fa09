# claude-sandbox for Nix: the same text that the wheel ships, behind a preamble for /nix/store.
{
  lib,
  stdenv,
  writeShellApplication,
  runCommand,
  bash,
  bubblewrap,
  coreutils,
  util-linux,
  git,
  gnugrep,
  gnused,
  findutils,
  chromium ? null,
  xvfb ? null,
  # For what is forwarded: gh, display, dbus.
  gh ? null,
  xauth ? null,
  xdg-dbus-proxy ? null,
  # For networks other than none: its egress proxy and door; network full.
  python3 ? null,
  passt ? null,
  nftables ? null,
  # What a payload finds in its PATH.
  tools ? [
    bash
    coreutils
    util-linux
    git
    gnugrep
    gnused
    findutils
  ],
}:
let
  contract = "2"; # as in csb_mcp/host/launchers.py
  program = package: name: if package == null then "" else "${lib.getBin package}/bin/${name}";
  filter = ./seccomp + "/${stdenv.hostPlatform.parsed.cpu.name}.bpf";

  assignments =
    values:
    lib.concatStrings (
      lib.mapAttrsToList (name: value: "CSB_${name}=${lib.escapeShellArg "${value}"}\n") values
    );
  programs = {
    CONTRACT = contract;
    LAYOUT = "nix";
    PATH = lib.makeBinPath tools;
    BPF = filter;
    BASH = program bash "bash";
    ENV = program coreutils "env";
    MKDIR = program coreutils "mkdir";
    STAT = program coreutils "stat";
    SETPRIV = program util-linux "setpriv";
    SETSID = program util-linux "setsid";
    SCRIPT = program util-linux "script";
    BWRAP = program bubblewrap "bwrap";
    CHROMIUM = program chromium "chromium";
    XVFB = program xvfb "Xvfb";
    GIT = program git "git";
    GH = program gh "gh";
    XAUTH = program xauth "xauth";
    DBUS_PROXY = program xdg-dbus-proxy "xdg-dbus-proxy";
    PYTHON = program python3 "python3";
    PASTA = program passt "pasta";
    NFT = program nftables "nft";
  };
  start = "#!${program bash "bash"} -p\nset -euo pipefail\n";

  share =
    runCommand "csb-share"
      {
        helper = start + assignments (programs // { SHARE = "/opt/csb"; }) + builtins.readFile ./helper.sh;
        wrapper =
          start + assignments (programs // { SHARE = "/opt/csb"; }) + builtins.readFile ./chromium.sh;
        passAsFile = [
          "helper"
          "wrapper"
        ];
      }
      ''
        mkdir -p "$out/bin"
        cp "$helperPath" "$out/helper.sh"
        cp ${./bus.py} "$out/bus.py"
        cp ${./chromium-policy.json} "$out/chromium-policy.json"
        cp ${./door.py} "$out/door.py"
        cp ${./probe_calls.py} "$out/probe_calls.py"
        cp ${./probes.py} "$out/probes.py"
        cp ${./scope.py} "$out/scope.py"
        for name in chromium chromium-browser google-chrome; do
          cp "$wrapperPath" "$out/bin/$name"
          chmod 0555 "$out/bin/$name"
        done
      '';
in
writeShellApplication {
  name = "claude-sandbox";
  excludeShellChecks = [ "SC2034" ]; # one preamble for all: not each text uses each variable
  text =
    assignments (programs // { SHARE = share; })
    + builtins.readFile ./common.sh
    + builtins.readFile ./arguments.sh
    + builtins.readFile ./network.sh
    + builtins.readFile ./certificates.sh
    + builtins.readFile ./forward.sh
    + builtins.readFile ./bubblewrap.sh;
}
