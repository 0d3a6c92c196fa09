# shellcheck shell=bash disable=SC2034,SC2154  # joined behind common.sh, before bubblewrap.sh
#
# What a payload trusts beside the system's authorities: that of its own sandbox, if it has secrets.
# It is trusted nowhere else, can vouch for the secrets' hosts alone, and its key is never seen here.

# Where distributions keep all authorities in one file; the first that is there is taken.
BUNDLES=(
  /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
  /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem
)
# Variables by which programs are told of a bundle that takes the system's place: OpenSSL and what
# uses it, curl, Python's requests and pip, git, npm; Node and Deno add theirs to their own.
BUNDLE_VARIABLES=(
  SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO CARGO_HTTP_CAINFO
  NIX_SSL_CERT_FILE npm_config_cafile
)

# Put into `certificate` what --authority names.
check_authority() {
  certificate=''
  [[ -n $authority ]] || return 0
  [[ -f $authority && -r $authority ]] || die "--authority $authority is not a file that can be read"
  certificate=$(<"$authority")
  [[ $certificate == '-----BEGIN CERTIFICATE-----'*'-----END CERTIFICATE-----' ]] ||
    die "--authority $authority holds no certificate"
}

# authority_args: after /run/csb was made, and before it is closed. (Not in $CSB_SHARE: that is the
# same for all sandboxes.)
authority_args() {
  [[ -n $authority ]] || return 0
  local bundle system=() name
  for bundle in "${BUNDLES[@]}"; do
    # By mapfile: $(<FILE) takes seven times as long, and each time that such a text is expanded, too.
    [[ ! -r $bundle ]] || { mapfile -d '' -t system <"$bundle" && break; }
  done
  # Names of their own: what a program finds in the system's place may be a folder of links.
  certificate_file --file /run/csb/authority.pem
  certificate_file --file /run/csb/certificates.pem system
  for bundle in "${BUNDLES[@]}"; do
    # Over the file itself, where something is already mounted: programs that read no variable. A
    # link leads to another one of these, or (NixOS) to what is not mounted.
    [[ ! -f $bundle || -L $bundle ]] || ! shown "$bundle" ||
      certificate_file --ro-bind-data "$bundle" system
  done
  for name in "${BUNDLE_VARIABLES[@]}"; do
    args+=(--setenv "$name" /run/csb/certificates.pem)
  done
  for name in NODE_EXTRA_CA_CERTS DENO_CERT; do
    args+=(--setenv "$name" /run/csb/authority.pem)
  done
}

# certificate_file HOW PATH [system]: the sandbox's own, or behind the system's. By a pipe that is
# written meanwhile; of this size, a here-string would be a file in the host's /tmp.
certificate_file() {
  local fd
  exec {fd}< <(printf '%s\n' ${3:+"${system[@]}"} "$certificate")
  args+=(--perms 0444 "$1" "$fd" "$2")
}

# shown PATH: whether root_args (common.sh) mounts what PATH lies in.
shown() {
  case $1 in
    /etc/ssl/certs/* | /etc/pki/tls/* | /etc/pki/ca-trust/extracted/*) return 0 ;;
  esac
  return 1
}

# authority_policy FOLDER: let Chromium, whose managed policies lie in FOLDER, trust it as well. The
# policy wants what stands between the lines of a PEM file.
authority_policy() {
  [[ -n $authority ]] || return 0
  local der=$certificate
  der=${der#-----BEGIN CERTIFICATE-----}
  der=${der%-----END CERTIFICATE-----}
  der=${der//$'\n'/}
  [[ $der =~ ^[A-Za-z0-9+/=]+$ ]] || die "--authority $authority holds no certificate"
  local fd
  exec {fd}<<<"{ \"CACertificates\": [\"$der\"] }"
  args+=(--perms 0444 --file "$fd" "$1/csb-authority.json")
}
