# Sourced by a build step that fetches something: beside Debian's authorities it then trusts those of
# the build secret `ca`, which may hold what the build machine has of its own. They lie in memory (a
# tmpfs on /run/trust) for one RUN, so that no layer has them. So do the package mirrors that it asks:
# those of the build secret `mirrors` (components/mirrors.py).
export SSL_CERT_FILE=/run/trust/ca.pem
export PIP_CERT="$SSL_CERT_FILE" NODE_EXTRA_CA_CERTS="$SSL_CERT_FILE"
cat /etc/ssl/certs/ca-certificates.crt > "$SSL_CERT_FILE" || exit 1
if [ -f /run/secrets/ca ]; then cat /run/secrets/ca >> "$SSL_CERT_FILE" || exit 1; fi
if [ -s /run/secrets/mirrors ]; then . /run/secrets/mirrors || exit 1; fi
